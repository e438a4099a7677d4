"""Starts the parts, serves, and stops them in order: nothing new, what runs ends, results are confirmed, then the server.

starting -> serving -> draining (SIGTERM) -> stopped, exit code 0
                            `-> stopped at once (second SIGTERM), exit code 1
"""

import asyncio
import os
import resource
import signal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from millrace.executions.v1 import server_service_pb2
from millrace.runner.v1 import runner_service_pb2_grpc

from millrace_automation.sandbox import Sandbox, SandboxSettings

from . import ids, image, log, metrics, reflection, service, telemetry
from .admin import Admin
from .artifacts import Store
from .auth import Signer, Verifier
from .egress import Egress
from .guard import Guard
from .jobs import Jobs
from .register import PROTOCOL, Registration
from .results import Stop
from .session import Sessions
from .settings import Settings
from .validation import PLACES, Validation

_CONFIRM_SECONDS = 10.0  # how long results may wait for their confirmation after the last job has ended
_STOP_SECONDS = 0.5
_OPTIONS = [
    ('grpc.so_reuseport', 0),  # a taken port is a fault, not a second server on it
    ('grpc.max_receive_message_length', 32 * 1024 * 1024),
    # a dispatcher that is gone or stands still is noticed by the connection within 15 s, never by the age of its data
    ('grpc.keepalive_time_ms', 5_000),
    ('grpc.keepalive_timeout_ms', 10_000),
    ('grpc.http2.ping_timeout_ms', 10_000),  # the one that decides: 60 s unless it is set
    ('grpc.http2.max_pings_without_data', 0),
    ('grpc.keepalive_permit_without_calls', 1),
    ('grpc.http2.min_ping_interval_without_data_ms', 1_000),
    ('grpc.http2.max_ping_strikes', 0),
]


def run(settings: Settings) -> int:
    log.set_up(settings.log_level)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its memory holds the secrets of the jobs that run
    try:
        return asyncio.run(_Server(settings).run())
    except Exception as fault:
        log.error('the automation server failed', fault)
        return 1


class _Server:
    def __init__(self, settings: Settings):
        self._settings = settings
        self._server_id = ids.new_id('srv')
        self._address = ''

    async def run(self) -> int:
        settings = self._settings
        contracts = image.load(settings.image)
        verifier = Verifier(settings.service_jwks)
        signer = Signer(settings.service_key) if settings.service_key else None
        services = [service.NAME, HEALTH, *reflection.SERVICES]
        guard = Guard(verifier, image.policies(contracts, service.NAME), tuple(services[1:]))
        if settings.telemetry:
            telemetry.set_up(self._server_id)
        signals = _signals()
        self._egress = Egress(settings.egress_allow)
        self._sandbox = await Sandbox.start(
            SandboxSettings(
                min_tier=settings.minimum_tier,
                environments=settings.environments,
                slots=settings.slots + PLACES,
                prepared=settings.prepared,
                reuse=settings.reuse,
            )
        )
        server = grpc.aio.server(interceptors=[guard], options=_OPTIONS)
        registering = None
        try:
            self._sandbox.residents.on_end = lambda why: metrics.kept_ends.labels(why).inc()
            self._jobs = Jobs(self._sandbox, self._egress, settings.slots, settings.minimum_tier)
            self._jobs.artifacts = Store(settings.executions_url, signer) if signer else None
            self._sessions = Sessions(self._jobs, self._server_id, settings.orphan_seconds)
            self._serve_rpcs(server, contracts, services)
            self._address = f'{settings.address.rpartition(":")[0]}:{server.add_insecure_port(settings.address)}'
            self._registration = Registration(settings.executions_url, signer, self._announcement())
            self._health = health.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            await self._set_health(self._jobs.has_sandbox)
            await server.start()
            admin = Admin(self._readiness, self._refresh)
            admin_address = await admin.start(settings.admin_address)
            registering = asyncio.create_task(self._registration.run())
            registering.add_done_callback(_report)
            self._say_ready(admin_address)
            code = await self._until_stopped(signals)
            await server.stop(_STOP_SECONDS)
            if self._jobs.artifacts:
                await self._jobs.artifacts.close()
            await admin.stop()
        finally:
            if registering:
                registering.cancel()
            await self._sandbox.stop()
            await self._egress.stop()
            telemetry.shut_down()
        log.info('stopped', code=code)
        return code

    def _serve_rpcs(self, server: grpc.aio.Server, contracts: object, services: list[str]) -> None:
        runner = service.RunnerService(
            self._server_id,
            self._sandbox,
            self._jobs,
            self._sessions,
            Validation(self._sandbox, self._jobs),
            self._settings.minimum_tier,
        )
        runner_service_pb2_grpc.add_RunnerServiceServicer_to_server(runner, server)
        reflection.Reflection(contracts, services).add_to(server)

    def _announcement(self) -> server_service_pb2.RegisterServerRequest:
        return server_service_pb2.RegisterServerRequest(
            server_id=self._server_id,
            endpoint=self._settings.endpoint or self._address,
            labels=self._settings.labels,
            slots=self._settings.slots,
            sandbox_tier=self._sandbox.tier,
            minimum_tier=self._settings.minimum_tier,
            protocol=PROTOCOL,
        )

    def _say_ready(self, admin_address: str) -> None:
        tier, least = self._sandbox.tier, self._settings.minimum_tier
        if tier < least:
            log.error(
                'the sandbox is below the lowest tier that is accepted: no job will run', tier=tier, minimum=least, why=self._sandbox.faults
            )
        log.info(
            'ready',
            address=self._address,
            admin=admin_address,
            server=self._server_id,
            tier=tier,
            limits=self._sandbox.limits,
            slots=self._settings.slots,
            python=self._sandbox.python_version,
        )

    async def _set_health(self, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ('', service.NAME):
            await self._health.set(name, status)

    async def _until_stopped(self, signals: asyncio.Queue[int]) -> int:
        await signals.get()
        draining = asyncio.create_task(self._drain())
        again = asyncio.create_task(signals.get())
        done, _ = await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
        if draining in done:
            again.cancel()
            draining.result()
            return 0
        draining.cancel()
        log.warn('stopping at once', running=len(self._jobs.running), unconfirmed=len(self._jobs.held))
        return 1

    async def _drain(self) -> None:
        jobs = self._jobs
        log.info('draining', running=len(jobs.running), unconfirmed=len(jobs.held))
        jobs.is_draining = True
        await self._set_health(False)
        self._sessions.drain()
        self._registration.drain()
        try:
            await asyncio.wait_for(jobs.until(lambda: not jobs.running), self._settings.drain_seconds)
        except TimeoutError:
            log.warn('jobs are stopped: the time to drain is over', running=len(jobs.running))
            jobs.stop_all(Stop.DRAIN)
            await jobs.until(lambda: not jobs.running)
        await self._registration.said()
        try:
            await asyncio.wait_for(jobs.until(lambda: not jobs.held), _CONFIRM_SECONDS)
        except TimeoutError:
            log.warn('results were not confirmed', unconfirmed=len(jobs.held))

    def _readiness(self) -> tuple[bool, dict[str, object]]:
        tier, least = self._sandbox.tier, self._settings.minimum_tier
        jobs, sessions, registration = self._jobs, self._sessions, self._registration
        is_ready = jobs.has_sandbox and not jobs.is_draining
        checks = {
            'sandbox': 'ok' if jobs.has_sandbox else f'tier {tier} is below the minimum {least}',
            'session': 'ok' if sessions.has_owner else 'no dispatcher',
            'registration': registration.fault or {'registered': 'ok'}.get(registration.state, registration.state),
        }
        return is_ready, {
            'ready': is_ready,
            'draining': jobs.is_draining,
            'checks': checks,
            'server': self._server_id,
            'sandbox': {'tier': tier, 'minimumTier': least, 'limits': list(self._sandbox.limits)},
            'session': {'epoch': max(0, sessions.epoch), 'dispatcher': sessions.dispatcher_id},
            'slots': {'total': jobs.slots, 'running': jobs.running_count, 'free': jobs.free},
        }

    def _refresh(self) -> None:
        metrics.slots.set(self._settings.slots)
        metrics.slots_free.set(self._jobs.free)
        metrics.held.set(len(self._jobs.held))
        metrics.output_bytes.set(self._jobs.kept_bytes)
        metrics.output_queue.set(self._sessions.queue_length)
        metrics.parked.set(self._sandbox.residents.parked)
        metrics.tier.set(self._sandbox.tier)
        metrics.epoch.set(max(0, self._sessions.epoch))


def _signals() -> asyncio.Queue[int]:
    """The signals that ask the server to stop, in the order of their coming."""
    arrived: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, arrived.put_nowait, number)
    return arrived


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()):
        log.error('registering failed for good; the process ends', fault)
        os.kill(os.getpid(), signal.SIGTERM)
