"""Runs scripts in the strongest sandbox that this machine proves to have."""

import asyncio
import os
import platform
import secrets
import socket
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import selftest
from .inside.plan import Plan
from .interpreter import identity_of, packages, python_folders
from .nursery import Child, Nursery
from .process import Process, give_network, network_of, packets_of
from .residents import Key, Residents, Values
from .rest import Rest
from .settings import Limits, SandboxSettings, SandboxUnavailable
from .users import user_ranges

_DEFAULT = 'base'
_LAUNCHES_OF_A_PARENT = 2000  # children share their parent's hash seed and address layout: it is replaced now and then
_SPARE = 8  # children that are being made or have just ended, beside those that run and wait
_PREPARED_TO_BE_KEPT = 2  # they start seldom, and run for long
_PREPARED_ELSEWHERE = 2  # in each environment but the default one
_SWEEP_SECONDS = 15.0
_TRIES = 3
_BACKOFF_SECONDS = (0.1, 5.0)


class Sandbox:
    """`start` finds the tier; `launch` starts a run; `stop` ends all runs."""

    def __init__(self, settings: SandboxSettings):
        self.settings = settings
        self.tier = 0
        self.limits: list[str] = []
        """Which limits hold and what holds them, such as `memory:cgroup`."""
        self.probes: list[tuple[str, bool]] = []
        """What the self-test tried in the tier in force (or last tried), and whether it was refused, as it must be."""
        self.faults: list[str] = []
        """Why each higher tier is not in force."""
        self.python_version = platform.python_version()
        self.packages = packages(settings.environments / _DEFAULT)
        self.residents = Residents(settings.reuse, self._spawn)
        self._built_tier = 0
        self._kept = min(_PREPARED_TO_BE_KEPT, settings.prepared, settings.reuse.parked)
        self._most = settings.slots + settings.prepared + self._kept + settings.reuse.parked + _SPARE
        self._users = user_ranges(self._most)
        self._nurseries: dict[str, Nursery] = {}
        self._old: set[Nursery] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest = Rest()
        self._seen: dict[str, object] = {}
        self._is_sweeping = False
        self._is_stopped = False

    @classmethod
    async def start(cls, settings: SandboxSettings) -> 'Sandbox':
        """Proves each tier by trying to break out of it. Never fails for what the machine lacks: the tier is then 0."""
        sandbox = cls(settings)
        for tier in (2, 1):
            if tier > max(settings.force_tier_at_most, 1):
                continue
            try:
                if await sandbox._prove(tier):
                    break
            except SandboxUnavailable as fault:
                sandbox.faults.append(f'tier {tier}: {fault}')
            await sandbox._end_nurseries()
        return sandbox

    async def launch(
        self,
        source: str,
        input_json: str,
        limits: Limits,
        *,
        environment: str = _DEFAULT,
        mode: str = 'run',
        traceparent: str = '',
        reuse: str = '',
        network: socket.socket | None = None,
        values: Values | None = None,
    ) -> Process:
        """`mode` is `run` or `validate`. Runs with the same `reuse` may share a process, one after the other, when all else is the same too;
        empty means never. `network` is the script's end of its gate, which the caller keeps open until the run has ended. `values` are those
        that the script may read by name: `secrets`, and `variables` as JSON. Raises SandboxUnavailable, and ValueError for an environment
        that does not exist.
        """
        if self.tier < max(self.settings.min_tier, 1):
            lowest = max(self.settings.min_tier, 1)
            raise SandboxUnavailable('; '.join([f'the sandbox has tier {self.tier}, {lowest} is the lowest allowed', *self.faults]))
        if not self.has_environment(environment):
            raise ValueError(f'there is no environment {environment!r}')
        if reuse and mode == 'run' and self.residents.is_on:
            return await self.residents.launch(Key(reuse, source, environment, limits), input_json, traceparent, network, values)
        return await self._launch(source, input_json, limits, environment, mode, traceparent, network, values)

    async def stop(self) -> None:
        """Kills every run. Nothing of the sandbox is left when it returns."""
        self._is_stopped = True
        self.residents.stop()
        for task in self._tasks:
            task.cancel()
        await self._end_nurseries()

    async def _prove(self, tier: int) -> bool:
        self._built_tier = tier
        nursery = await self._nursery(_DEFAULT)
        verdict = await selftest.run(self._launch, nursery, tier)
        self.probes = verdict.probes
        if verdict.fault:
            self.faults.append(f'tier {tier}: {verdict.fault}')
            return False
        self.tier, self.limits = tier, verdict.limits
        return True

    async def _launch(
        self,
        source: str,
        input_json: str,
        limits: Limits,
        environment: str,
        mode: str,
        traceparent: str,
        network: socket.socket | None = None,
        values: Values | None = None,
    ) -> Process:
        request = {'mode': mode, 'source': source, 'input': input_json, 'traceparent': traceparent} | (values or {})
        return Process(await self._spawn(environment, limits, request, [], network))

    async def _spawn(
        self,
        environment: str,
        limits: Limits,
        request: dict[str, Any],
        line: list[socket.socket],
        network: socket.socket | None = None,
        commit: Callable[[], None] = lambda: None,
    ) -> Child:
        """A child with its request, and with a line by which it may be kept. `commit` is called when there is one, before it has the request."""
        packets = packets_of(request | {'limits': asdict(limits)} | network_of(network))
        fault: Exception | None = None
        for _ in range(_TRIES):
            nursery = await self._nursery(environment)
            try:
                child = await nursery.take(limits, may_be_kept=bool(line))
            except SandboxUnavailable as error:
                fault = error
                continue
            try:
                commit()
                await _begin(child, limits, packets, line)
                if network:
                    await give_network(child.channel, network)
            except OSError as error:  # it ended while it waited
                fault = error
                child.kill()
                child.close()
                continue
            except BaseException:
                child.kill()
                child.close()
                raise
            nursery.launched += 1
            return child
        raise SandboxUnavailable(f'no sandboxed process could be started: {fault}')

    async def _nursery(self, environment: str) -> Nursery:
        """The environment's parent, a new one when there is none or it has died."""
        self._rest.use(environment)
        async with self._locks.setdefault(environment, asyncio.Lock()):
            present = self._nurseries.get(environment)
            seen = identity_of(self._libraries(environment)) if environment != _DEFAULT else None
            if present and seen != self._seen.get(environment):  # built again: what it shows was removed
                self._retire(environment)
            elif present and present.is_alive:
                if present.launched >= _LAUNCHES_OF_A_PARENT and present not in self._old:
                    self._old.add(present)
                    self._keep(self._replace(environment, present))
                return present
            new = await self._start_nursery(environment)
            self._nurseries[environment] = new
            self._seen[environment] = seen
            if environment != _DEFAULT:
                self._end_resting()
                if not self._is_sweeping:
                    self._is_sweeping = True
                    self._keep(self._sweep())
            return new

    def _end_resting(self) -> None:
        """Of parents of environments that nobody uses."""
        for environment in self._rest.due(name for name in self._nurseries if name != _DEFAULT):
            self._retire(environment)

    def _retire(self, environment: str) -> None:
        nursery = self._nurseries.pop(environment)
        self._old.add(nursery)  # so that a stop finds it while its last run goes on
        nursery.retire()

    async def _sweep(self) -> None:
        while any(name != _DEFAULT for name in self._nurseries):
            await asyncio.sleep(_SWEEP_SECONDS)
            self._end_resting()
        self._is_sweeping = False

    async def _start_nursery(self, environment: str) -> Nursery:
        if self._is_stopped:
            raise SandboxUnavailable('the sandbox is stopped')
        new = await Nursery.start(self._plan(environment))
        self._keep(self._watch(environment, new))
        return new

    async def _replace(self, environment: str, present: Nursery) -> None:
        """Nobody waits for the new parent: the present one serves until it is warm, and ends with the last of its runs."""
        try:
            new = await self._start_nursery(environment)
        except SandboxUnavailable:
            self._old.discard(present)  # it goes on; the next launch tries again
            return
        self._old.add(new)  # so that a stop finds it
        await new.warm_up()
        self._old.discard(new)
        if new.is_alive and self._nurseries.get(environment) is present:
            self._nurseries[environment] = new
            present.retire()
        else:
            self._old.discard(present)
            await new.stop()

    async def _watch(self, environment: str, nursery: Nursery) -> None:
        """Replaces a parent that died, so that the next run does not wait for it."""
        await nursery.gone.wait()
        await nursery.stop()
        self._old.discard(nursery)
        delay, most = _BACKOFF_SECONDS
        while not self._is_stopped and self._nurseries.get(environment) is nursery:
            try:
                await self._nursery(environment)
            except SandboxUnavailable:
                await asyncio.sleep(delay)
                delay = min(delay * 2, most)

    def _keep(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_nurseries(self) -> None:
        ending = [*self._nurseries.values(), *self._old]
        self._nurseries.clear()
        self._old.clear()
        await asyncio.gather(*(nursery.stop() for nursery in ending))

    def _plan(self, environment: str) -> Plan:
        libraries = self._libraries(environment)
        in_use = [nursery.plan.uids for nursery in (*self._nurseries.values(), *self._old) if nursery.is_alive]
        return Plan(
            tier=self._built_tier,
            landlock=self.settings.force_tier_at_most >= 1,
            prepared=self.settings.prepared if environment == _DEFAULT else min(_PREPARED_ELSEWHERE, self.settings.prepared),
            kept=self._kept if environment == _DEFAULT else min(1, self._kept),
            most=self._most,
            uids=next((uids for uids in self._users if uids not in in_use), []),
            python=python_folders(),
            libraries=str(libraries) if libraries else None,
            work=f'{tempfile.gettempdir()}/millrace-sandbox-{os.getpid()}-{secrets.token_hex(8)}',
            server=os.getpid(),
        )

    def has_environment(self, environment: str) -> bool:
        """Whether runs can have it: it may be built at any time."""
        return environment == _DEFAULT or self._libraries(environment) is not None

    def _libraries(self, environment: str) -> Path | None:
        if not environment or '/' in environment or environment.startswith('.'):
            return None
        folder = (self.settings.environments / environment).resolve()
        return folder if folder.is_dir() else None


async def _begin(child: Child, limits: Limits, packets: list[bytes], line: list[socket.socket]) -> None:
    if limits != Limits():  # the default ones hold since the child was prepared
        await asyncio.shield(child.armed)
    loop = asyncio.get_running_loop()
    head, *rest = packets
    if line:
        socket.send_fds(child.channel, [head], [end.fileno() for end in line])
    else:
        child.channel.send(head)  # the first packet finds room
    for packet in rest:
        await loop.sock_sendall(child.channel, packet)
