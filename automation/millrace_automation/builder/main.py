"""Takes one build after the other until it is told to stop. What it leaves when it is killed is begun anew by the next builder.

starting -> waiting <-> building -> stopped (SIGTERM: a build that is under way is dropped)
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from pathlib import Path

import grpc
from millrace.automations.v1 import environment_build_service_pb2 as pb
from millrace.automations.v1 import environment_build_service_pb2_grpc as pb_grpc

from millrace_automation.sandbox.interpreter import PLATFORM, packages
from millrace_automation.server import log
from millrace_automation.server.admin import Admin
from millrace_automation.server.auth import Signer

from .settings import Settings
from .steps import BuildError, Built, Workshop
from .teller import Lost, Teller, send

_CLAIM_SECONDS = 20.0
_TELL_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_PREFIX = '.building-'


def run(settings: Settings) -> int:
    log.set_up(settings.log_level)
    try:
        asyncio.run(_Builder(settings).run())
    except Exception as fault:
        log.error('the builder failed', fault)
        return 1
    return 0


class _Builder:
    def __init__(self, settings: Settings):
        self._settings = settings
        self._signer = Signer(settings.key, 'builder')
        self._id = f'bld_{secrets.token_hex(8)}'
        self._digest = ''
        self._fault = 'not connected yet'

    async def run(self) -> None:
        settings = self._settings
        settings.environments.mkdir(parents=True, exist_ok=True)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        admin = Admin(self._readiness, lambda: None)
        address = await admin.start(settings.admin_address)
        log.info('ready', admin=address, builder=self._id, platform=PLATFORM, environments=str(settings.environments))
        async with grpc.aio.insecure_channel(settings.automations_url, options=[('grpc.keepalive_time_ms', 10_000)]) as channel:
            self._stub = pb_grpc.EnvironmentBuildServiceStub(channel)
            working = asyncio.create_task(self._work())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (working, stopping):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        await admin.stop()
        log.info('stopped')

    def _readiness(self) -> tuple[bool, dict[str, object]]:
        checks = {'automations': self._fault or 'ok'}
        return not self._fault, {
            'ready': not self._fault,
            'builder': self._id,
            'building': self._digest,
            'platform': PLATFORM,
            'checks': checks,
        }

    async def _call(self, method: str, request: object, timeout: float = _TELL_SECONDS) -> object:
        metadata = (('authorization', f'Bearer {self._signer.token("automations")}'),)
        return await getattr(self._stub, method)(request, timeout=timeout, metadata=metadata)

    async def _work(self) -> None:
        request = pb.ClaimEnvironmentBuildRequest(builder_id=self._id, platform=PLATFORM)
        is_first = True
        while True:
            try:
                # the first answer comes at once, so that it is known whether builds can be had
                claim = await self._call('ClaimEnvironmentBuild', request, 2.0 if is_first else _CLAIM_SECONDS)
                self._fault = ''
            except grpc.aio.AioRpcError as fault:
                if is_first and fault.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    is_first, self._fault = False, ''
                    continue
                self._fail(f'{fault.code().name}: {fault.details()}')
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            is_first = False
            if claim.digest:
                await self._build(claim)

    def _fail(self, fault: str) -> None:
        if fault != self._fault:
            log.warn('builds cannot be had; will try again', automations=self._settings.automations_url, why=fault)
        self._fault = fault

    async def _build(self, claim: pb.ClaimEnvironmentBuildResponse) -> None:
        log.info('building', digest=claim.digest, epoch=claim.epoch)
        self._digest = claim.digest
        teller = Teller(self._call, claim)
        telling = asyncio.create_task(teller.run())
        making = asyncio.create_task(self._make(claim, teller))
        try:
            await asyncio.wait((telling, making), return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                telling.result()  # raises Lost
            end = making.result()
            teller.close()
            await telling
            await send(self._call, 'EndEnvironmentBuild', end)
            log.info('built', digest=claim.digest, error=end.error)
        except Lost as fault:
            log.warn('a build is dropped: somebody else has it', digest=claim.digest, why=str(fault))
        finally:
            self._digest = ''
            for task in (telling, making):
                task.cancel()
            await asyncio.gather(telling, making, return_exceptions=True)

    async def _make(self, claim: pb.ClaimEnvironmentBuildResponse, teller: Teller) -> pb.EndEnvironmentBuildRequest:
        end = pb.EndEnvironmentBuildRequest(digest=claim.digest, epoch=claim.epoch)
        try:
            async with asyncio.timeout(self._settings.seconds):
                built = await self._made(claim, teller)
            end.packages.extend(built.packages[:1000])
            end.size_kib = built.size_kib
            teller.say(f'ready: {len(built.packages)} libraries, {built.size_kib} KiB')
        except BuildError as fault:
            end.error = str(fault)[:4000]
            for number, message in fault.problems:
                end.problems.add(requirement=number, message=message)
        except TimeoutError:
            end.error = f'it took longer than {self._settings.seconds:g} s'
        except OSError as fault:
            log.error('a build failed', fault, digest=claim.digest)
            end.error = f'the builder could not write it: {fault.strerror}'
        if end.error:
            teller.say(f'failed: {end.error}')
        return end

    async def _made(self, claim: pb.ClaimEnvironmentBuildResponse, teller: Teller) -> Built:
        folder = self._settings.environments
        target = folder / claim.digest
        if target.is_dir():
            teller.say('it was built before')
            return Built(packages(target), sum(path.lstat().st_size for path in target.rglob('*')) // 1024)
        for left in folder.glob(f'{_PREFIX}{claim.digest}-*'):  # by builders that were lost
            shutil.rmtree(left, ignore_errors=True)
        workshop = Workshop(
            folder=folder / f'{_PREFIX}{claim.digest}-{claim.epoch}',
            requirements=claim.requirements.splitlines(),
            index_url=self._settings.index_url,
            size_mib=self._settings.size_mib,
            say=teller.say,
        )
        try:
            workshop.begin()
            await workshop.fetch()
            built = await workshop.install()
            await asyncio.to_thread(os.sync)  # a file that lost its content by a power cut would stay so for ever
            _place(workshop.site, target)
            return built
        finally:
            workshop.clear()


def _place(made: Path, target: Path) -> None:
    """There as a whole or not at all, and never changed again: what somebody else has put there meanwhile is the same."""
    with contextlib.suppress(FileExistsError):
        made.rename(target)
    if not target.is_dir():
        raise BuildError('it could not be put in its place')
