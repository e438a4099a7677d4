"""The steps of a build: fetch with a network and without anything else, install without a network, compile. No code of a library is run."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from millrace_automation.sandbox.interpreter import PLATFORM, packages, python_folders

_SHUT_IN = Path(__file__).with_name('shut_in.py')
_SYSTEM = ['/usr', '/lib', '/lib32', '/lib64', '/bin', '/sbin', '/etc', '/proc', '/run/systemd/resolve']
_OUTER = re.compile(r'^(PIP_\w+|\w+_(?:proxy|PROXY)|SSL_CERT_\w+|REQUESTS_CA_BUNDLE)$')
_LINE_BYTES = 64 * 1024
_NO_WHEEL = 'No matching distribution found for'
_MISMATCH = 'DO NOT MATCH THE HASHES'


class BuildError(Exception):
    """It cannot be built. `problems` are requirements by their number, from 0, and what is wrong with each."""

    def __init__(self, message: str, problems: list[tuple[int, str]] | None = None):
        super().__init__(message)
        self.problems = problems or []


@dataclass
class Built:
    packages: list[str] = field(default_factory=list)
    size_kib: int = 0


@dataclass
class Workshop:
    """Where one build is made. `folder` is its own and beside the finished ones; `say` tells a line."""

    folder: Path
    requirements: list[str]
    index_url: str
    size_mib: int
    say: Callable[[str], None]

    @property
    def site(self) -> Path:
        return self.folder / 'site'

    @property
    def _list(self) -> Path:
        return self.folder / 'requirements.txt'

    def begin(self) -> None:
        for name in ('', 'wheels', 'site', 'tmp'):
            (self.folder / name).mkdir(mode=0o700)
        self._list.write_text('\n'.join(self.requirements) + '\n')

    async def fetch(self) -> None:
        self.say(f'fetching {len(self.requirements)} libraries for {PLATFORM}')
        index = ['--index-url', self.index_url] if self.index_url else []
        outer = {name: value for name, value in os.environ.items() if _OUTER.match(name)}
        if self.index_url:  # the only one: nothing else that pip is told elsewhere
            outer = {name: value for name, value in outer.items() if not name.startswith('PIP_')} | {'PIP_CONFIG_FILE': os.devnull}
        pip = ['download', '--no-cache-dir', *index, '-d', str(self.folder / 'wheels')]
        said: list[str] = []
        code = await self._run(self._pip(pip), outer, True, said)
        if code:
            raise self._fault(said)
        if any(path.suffix != '.whl' for path in (self.folder / 'wheels').iterdir()):
            raise BuildError('something else than wheels was fetched')
        self._measure(self.folder / 'wheels')

    async def install(self) -> Built:
        self.say('installing, without a network')
        pip = ['install', '--no-index', '--find-links', str(self.folder / 'wheels'), '--no-compile', '--target', str(self.site)]
        said: list[str] = []
        if code := await self._run(self._pip(pip), {'PIP_CONFIG_FILE': os.devnull}, False, said):
            raise BuildError(_errors(said) or f'installing ended with exit code {code}')
        compiling = [
            '-m',
            'compileall',
            '-qq',
            '--invalidation-mode',
            'unchecked-hash',
            '-s',
            str(self.site),
            '-p',
            '/site',
            str(self.site),
        ]
        await self._run([sys.executable, '-I', *compiling], {}, False, [])  # what cannot be compiled cannot be imported either
        size = self._measure(self.site)
        for path in (self.site, *self.site.rglob('*')):
            if path.is_symlink():
                raise BuildError(f'a library holds a link: {path.relative_to(self.site)}')
            path.chmod(0o755 if path.is_dir() else 0o644)  # scripts run as users of their own
        return Built(packages(self.site), size)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pip(self, arguments: list[str]) -> list[str]:
        rules = ['--require-hashes', '--only-binary=:all:', '--no-deps', '--disable-pip-version-check', '--no-input']
        return [sys.executable, '-I', '-m', 'pip', *arguments, *rules, '--progress-bar', 'off', '-r', str(self._list)]

    async def _run(self, command: list[str], outer: dict[str, str], has_network: bool, said: list[str]) -> int:
        """Its lines are told and added to `said`. Ended as a whole when the build is given up."""
        named = [value for name, value in outer.items() if not name.lower().endswith('_proxy') and value.startswith('/')]
        own = str(Path(__file__).resolve().parents[2])
        home = Path.home() if has_network else None
        config = [str(home / name) for name in ('.config/pip', '.pip', '.netrc')] if home else []
        read = [*_SYSTEM, *python_folders(), sys.prefix, os.path.realpath(sys.executable), own, *named, *config]
        plan = {'network': has_network, 'read': read, 'write': [str(self.folder)]}
        env = {
            'PATH': os.environ.get('PATH', os.defpath),
            'LANG': 'C.UTF-8',
            'TMPDIR': str(self.folder / 'tmp'),
            'HOME': str(home or self.folder),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, '-I', str(_SHUT_IN), json.dumps(plan), *command),
            env=env | outer,
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_LINE_BYTES,
        )
        try:
            async for line in _lines(process.stdout):
                text = line.replace(f'{self.folder}/', '').rstrip()
                said.append(text)
                self.say(text)
            return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _measure(self, folder: Path) -> int:
        size = sum(path.lstat().st_size for path in folder.rglob('*'))
        if size > self.size_mib << 20:
            raise BuildError(f'it is larger than {self.size_mib} MiB')
        return size // 1024

    def _fault(self, said: list[str]) -> BuildError:
        """What pip said, by the requirements that it names."""
        problems = []
        for number, requirement in enumerate(self.requirements):
            what = re.split(r'[ ;]', requirement, maxsplit=1)[0]
            pinned = re.sub(r'\[.*\]', '', what)
            if message := _complaint(said, pinned):
                problems.append((number, message))
        if any(_MISMATCH in line for line in said):
            return BuildError('a library is not what its hashes name', problems)
        return BuildError(_errors(said) or 'pip could not fetch the libraries', problems)


def _complaint(said: list[str], pinned: str) -> str:
    """What is wrong with one of the libraries, by pip's errors."""
    pattern = '[-_.]'.join(re.escape(part) for part in pinned.split('-'))
    name = re.compile(rf'(?i)(?<![\w.-]){pattern}(?![\w.])')
    found = [(at, line) for at, line in enumerate(said) if name.search(line)]
    if any(_NO_WHEEL in line for _, line in found):
        return f'the index has no wheel of {pinned} for {PLATFORM}; nothing but wheels is installed'
    is_mismatch = any(_MISMATCH in line for line in said)
    for at, line in found:
        if is_mismatch and line.startswith('    '):
            got = next((after.split()[-1] for after in said[at:] if after.split()[:1] == ['Got']), 'another one')
            return f'its file is not one that the hashes name: it has sha256:{got}'
        if line.startswith('ERROR:'):
            return line.removeprefix('ERROR:').strip()[:500]
    return ''


def _errors(said: list[str]) -> str:
    return '; '.join(line.removeprefix('ERROR:').strip() for line in said if line.startswith('ERROR:'))[:2000]


async def _lines(stream: asyncio.StreamReader):
    """The lines; of one that is too long, its parts."""
    rest = b''
    while chunk := await stream.read(8192):
        *whole, rest = (rest + chunk).split(b'\n')
        for line in whole:
            yield line.decode(errors='replace')
        if len(rest) > _LINE_BYTES:
            yield rest.decode(errors='replace')
            rest = b''
    if rest:
        yield rest.decode(errors='replace')
