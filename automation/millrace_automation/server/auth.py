"""Tokens between services: verifies those that come in, signs those of this server's own calls."""

import json
import time
from pathlib import Path

import jwt

from . import log
from .errors import RpcError

ISSUER = 'millrace'
TYPE = 'service+jwt'
AUDIENCE = 'service/runner'
_LEEWAY_SECONDS = 5
_OWN_SECONDS = 60


class Verifier:
    """Knows the public keys of the services. The file is read again when it changes."""

    def __init__(self, path: Path):
        self._path = path
        self._version: tuple[int, int] | None = None
        self._keys: dict[str, object] = {}
        self._read()

    def service(self, token: str | None) -> str:
        """The name of the service that signed the token, or an RpcError."""
        if not token:
            raise RpcError('TOKEN_MISSING', 'the call needs the token of a service')
        self._read()
        try:
            header = jwt.get_unverified_header(token)
            name = header.get('kid')
            key = self._keys.get(name) if isinstance(name, str) else None
            if header.get('typ') != TYPE or key is None:
                raise jwt.InvalidTokenError('not the token of a known service')
            claims = jwt.decode(
                token,
                key,
                algorithms=['EdDSA'],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=_LEEWAY_SECONDS,
                options={'require': ['exp', 'iat', 'iss', 'aud', 'sub']},
            )
            if claims['sub'] != f'service/{name}':  # a service signs for itself only
                raise jwt.InvalidTokenError('the subject is not the signer')
        except jwt.PyJWTError as fault:
            log.debug('a token was refused', why=str(fault))
            raise RpcError('TOKEN_INVALID', 'the token is malformed, expired or not for this server') from None
        return name

    def _read(self) -> None:
        try:
            state = self._path.stat()
            version = (state.st_mtime_ns, state.st_size)
            if version == self._version:
                return
            keys = {}
            for entry in json.loads(self._path.read_bytes())['keys']:
                if entry.get('kty') == 'OKP' and entry.get('crv') == 'Ed25519':
                    keys[entry['kid']] = jwt.PyJWK(entry, algorithm='EdDSA').key
            self._keys, self._version = keys, version
        except (OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as fault:
            if self._version is None:
                raise ValueError(f'{self._path} holds no key set: {fault}') from fault
            log.warn('the key set cannot be read; the earlier keys stay in force', why=str(fault))


class Signer:
    """Makes the tokens that this server shows to other services. `name` is whose key it is."""

    def __init__(self, key: Path, name: str = 'runner'):
        self._name = name
        self._key = jwt.get_algorithm_by_name('EdDSA').prepare_key(key.read_text())

    def token(self, area: str) -> str:
        now = int(time.time())
        claims = {'iss': ISSUER, 'sub': f'service/{self._name}', 'aud': f'service/{area}', 'iat': now, 'exp': now + _OWN_SECONDS}
        return jwt.encode(claims, self._key, algorithm='EdDSA', headers={'kid': self._name, 'typ': TYPE})
