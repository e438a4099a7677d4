"""The admin port: /livez, /readyz and /metrics over plain HTTP. One request a connection, small ones only."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from . import log

_SECONDS = 5.0
_HEAD_BYTES = 16 * 1024
Answer = tuple[HTTPStatus, str, bytes]


class Admin:
    def __init__(self, readiness: Callable[[], tuple[bool, dict[str, object]]], refresh: Callable[[], None]):
        self._readiness = readiness
        self._refresh = refresh  # brings the gauges up to date
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> str:
        """Listens; gives the address with its port."""
        host, _, port = address.rpartition(':')
        self._server = await asyncio.start_server(self._serve, host.strip('[]') or None, int(port), limit=_HEAD_BYTES)
        return f'{host}:{self._server.sockets[0].getsockname()[1]}'

    async def stop(self) -> None:
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
                method, _, rest = head.partition(' ')
                status, kind, body = self._answer(method, rest.partition(' ')[0].partition('?')[0])
                lines = (
                    f'HTTP/1.1 {status.value} {status.phrase}',
                    f'content-type: {kind}',
                    f'content-length: {len(body)}',
                    'cache-control: no-store',
                    'connection: close',
                )
                writer.write('\r\n'.join((*lines, '', '')).encode() + (b'' if method == 'HEAD' else body))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or never asked properly
        except Exception as fault:
            log.error('the admin port failed', fault)
        finally:
            writer.close()

    def _answer(self, method: str, path: str) -> Answer:
        if method not in ('GET', 'HEAD'):
            return HTTPStatus.METHOD_NOT_ALLOWED, 'text/plain', b'GET only\n'
        match path:
            case '/livez':
                return HTTPStatus.OK, 'text/plain', b'ok\n'
            case '/readyz':
                is_ready, report = self._readiness()
                body = json.dumps(report).encode()
                return HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE, 'application/json', body
            case '/metrics':
                self._refresh()
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest()
        return HTTPStatus.NOT_FOUND, 'text/plain', b'there are /livez, /readyz and /metrics\n'
