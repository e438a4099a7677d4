"""Which tier and which limits hold: found out by trying to break them, never believed.

Every probe is an ordinary run. The tier holds when all of them are refused.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from .events import Event, Exited, Raised, Returned
from .nursery import Nursery
from .process import Process
from .settings import Limits

Launch = Callable[[str, str, Limits, str, str, str], Awaitable[Process]]

_PROBES = Path(__file__).parent / 'probes'
_SECONDS = 60.0
_MIB = 1 << 20


@dataclass
class Verdict:
    probes: list[tuple[str, bool]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    fault: str = ''
    """Why the tier does not hold. Empty when it does."""


async def run(launch: Launch, nursery: Nursery, tier: int) -> Verdict:
    probe = _Prober(launch)
    verdict = Verdict()
    try:
        async with asyncio.timeout(_SECONDS):
            results = await asyncio.gather(
                probe.escape(nursery), probe.memory(), probe.processes(), probe.files(), probe.disk(tier), probe.processor()
            )
    except TimeoutError:
        verdict.fault = f'the self-test did not end within {_SECONDS:g} s'
        return verdict
    for tried in results:
        verdict.probes += tried
    groups = nursery.facts['groups']
    holds = dict(verdict.probes)
    by = {
        'memory': 'cgroup' if 'memory' in groups else 'watch',
        'pids': 'cgroup' if 'pids' in groups else 'rlimit' if tier >= 2 or nursery.plan.uids else 'watch',
        'files': 'rlimit',
        'disk': 'tmpfs' if tier >= 2 else 'rlimit',
        'cpu': 'rlimit',
    }
    verdict.limits = [f'{limit}:{how}' for limit, how in by.items() if holds.get(_LIMIT_PROBES[limit])]
    broken = [name for name, refused in verdict.probes if not refused]
    if broken:
        verdict.fault = f'not refused: {", ".join(broken)}'
    return verdict


_LIMIT_PROBES = {
    'memory': 'take memory in many processes',
    'pids': 'fork without end',
    'files': 'open files without end',
    'disk': 'write a file without end',
    'cpu': 'compute without end',
}


class _Prober:
    def __init__(self, launch: Launch):
        self._launch = launch

    async def _run(self, name: str, given: dict, limits: Limits) -> tuple[Returned | Raised | None, Exited]:
        source = (_PROBES / f'{name}.py').read_text()
        process = await self._launch(source, json.dumps(given), limits, 'base', 'run', '')
        verdict: Returned | Raised | None = None
        last: Event | None = None
        async for event in process.events():
            last = event
            if isinstance(event, Returned | Raised):
                verdict = event
        assert isinstance(last, Exited)
        return verdict, last

    async def escape(self, nursery: Nursery) -> list[tuple[str, bool]]:
        """Everything that reaches outside. A probe that cannot even run proves nothing, so it counts as not refused."""
        given = {
            'tier': nursery.plan.tier,
            'server': os.getpid(),
            'parent': nursery.facts['pid'],
            'package': str(Path(__file__).parent),
            'home': os.path.expanduser('~'),
        }
        verdict, _ = await self._run('escape', given, Limits())
        if not isinstance(verdict, Returned):
            why = verdict.message if isinstance(verdict, Raised) else 'killed'
            if isinstance(verdict, Raised) and verdict.type == 'ModuleNotFoundError':  # in tier 1
                why += ': the users of the sandbox must be let into the folders of Python, chmod o+x, or use a Python from elsewhere'
            return [(f'run the probes ({why})', False)]
        return [(str(name), refused is True) for name, refused in json.loads(verdict.output_json).items()]

    async def memory(self) -> list[tuple[str, bool]]:
        """Each process stays below the limit; together they do not."""
        verdict, end = await self._run('memory', {'processes': 6, 'bytes_each': 48 * _MIB}, Limits(memory_mib=128))
        return [(_LIMIT_PROBES['memory'], end.oom or (isinstance(verdict, Returned) and json.loads(verdict.output_json)['lost'] > 0))]

    async def processes(self) -> list[tuple[str, bool]]:
        limit = 32
        verdict, end = await self._run('processes', {'most': 200, 'limit': limit}, Limits(processes=limit))
        return [(_LIMIT_PROBES['pids'], end.signal == 9 or (isinstance(verdict, Returned) and int(verdict.output_json) <= limit))]

    async def files(self) -> list[tuple[str, bool]]:
        verdict, _ = await self._run('files', {'most': 2000}, Limits())
        return [(_LIMIT_PROBES['files'], isinstance(verdict, Returned) and int(verdict.output_json) < 1000)]

    async def disk(self, tier: int) -> list[tuple[str, bool]]:
        """Tier 1 has no limit over all files together."""
        verdict, _ = await self._run('disk', {'files': 3 if tier >= 2 else 1, 'mib_each': 6}, Limits(disk_mib=8 if tier >= 2 else 4))
        return [(_LIMIT_PROBES['disk'], isinstance(verdict, Returned) and json.loads(verdict.output_json) is False)]

    async def processor(self) -> list[tuple[str, bool]]:
        _, end = await self._run('processor', {'seconds': 10}, Limits(cpu_seconds=1))
        return [(_LIMIT_PROBES['cpu'], end.signal is not None)]
