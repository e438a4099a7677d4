"""The session with the owning dispatcher: two streams, one for control and one for output, so that data never delays control.

  no owner -> owned (control open) -> no owner (control lost) -> owned again within the orphan time, else its jobs are stopped
A stream of a higher epoch takes over at once and closes those of a lower one; jobs outlive streams.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import grpc
from millrace.runner.v1 import job_pb2, session_pb2

from . import log
from .errors import RpcError
from .jobs import CLAIM_BYTES, Job, Jobs, Refused
from .outbox import Outbox
from .results import Stop

Request, Response, Open = session_pb2.SessionRequest, session_pb2.SessionResponse, session_pb2.SessionOpen
FRAME_BYTES = 1024 * 1024
TURN_BYTES = 64 * 1024  # of one job, before the next one's turn
_OPEN_SECONDS = 10
_MOST_REPLIES = 10_000


class Stream:
    """One open stream. What it has to send is a matter of its channel; `wake` says that there is something."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.superseded = asyncio.Event()
        self.replies: deque[Response] = deque()
        self.credit = 0

    def reply(self, response: Response) -> None:
        self.replies.append(response)
        self.wake.set()


class Sessions:
    def __init__(self, jobs: Jobs, server_id: str, orphan_seconds: float):
        self.epoch = -1
        self.dispatcher_id = ''
        self._jobs = jobs
        self._server_id = server_id
        self._orphan_seconds = orphan_seconds
        self._orphan_timer: asyncio.TimerHandle | None = None
        self._streams: dict[int, Stream] = {}
        self._granted = 0  # credits that the dispatcher has not used yet
        self._news: dict[Outbox, None] = {}  # in the order of their turns
        jobs.on_free = self._grant

    @property
    def has_owner(self) -> bool:
        return Open.CONTROL in self._streams

    @property
    def queue_length(self) -> int:
        return len(self._news)

    async def serve(self, context: grpc.aio.ServicerContext) -> None:
        """One stream from its `open` to its end."""
        stream = Stream()
        opening = await self._first(context)
        channel = opening.channel
        self._admit(opening, stream)
        is_control = channel == Open.CONTROL
        log.info('a dispatcher opened a stream', dispatcher=opening.dispatcher_id, epoch=opening.epoch, channel=Open.Channel.Name(channel))
        try:
            await context.write(Response(opened=self._opened(stream, is_control)))
            if is_control:
                await self._exchange(stream, context, self._obey, self._control_frames)
            else:
                self._rewind(stream)
                await self._exchange(stream, context, self._confirm, self._output_frames)
        finally:
            if self._streams.get(channel) is stream:
                del self._streams[channel]
            if is_control and not self.has_owner and not self._orphan_timer:
                self._granted = 0
                self._orphan_timer = asyncio.get_running_loop().call_later(self._orphan_seconds, self._abandon)
            log.info('a stream ended', dispatcher=opening.dispatcher_id, epoch=opening.epoch, channel=Open.Channel.Name(channel))

    def drain(self) -> None:
        """Tells the owner that nothing new is taken."""
        self._granted = 0
        if control := self._streams.get(Open.CONTROL):
            control.credit = 0
            control.reply(Response(draining=session_pb2.Draining()))

    # opening

    async def _first(self, context: grpc.aio.ServicerContext) -> Open:
        try:
            first = await asyncio.wait_for(context.read(), _OPEN_SECONDS)
        except TimeoutError:
            first = grpc.aio.EOF
        if first is grpc.aio.EOF or first.WhichOneof('message') != 'open' or first.open.channel not in (Open.CONTROL, Open.OUTPUT):
            raise RpcError('NOT_OPENED', 'the first message of a stream must be `open` with one of the two channels')
        return first.open

    def _admit(self, opening: Open, stream: Stream) -> None:
        if opening.server_id not in ('', self._server_id):  # epochs of another server, which was here before, say nothing about this one
            raise RpcError('CONFLICT', f'{opening.server_id} is meant; this server is {self._server_id}')
        is_other = opening.epoch == self.epoch and opening.dispatcher_id != self.dispatcher_id
        if opening.epoch < self.epoch or is_other:
            raise RpcError('CONFLICT', f'epoch {opening.epoch} is not the highest; this server obeys epoch {self.epoch}')
        if opening.epoch > self.epoch:
            for earlier in self._streams.values():
                earlier.superseded.set()
            self._streams.clear()
            self._granted = 0
            self.epoch, self.dispatcher_id = opening.epoch, opening.dispatcher_id
        elif earlier := self._streams.get(opening.channel):
            earlier.superseded.set()
        self._streams[opening.channel] = stream
        if opening.channel == Open.CONTROL and self._orphan_timer:
            self._orphan_timer.cancel()
            self._orphan_timer = None

    def _opened(self, stream: Stream, is_control: bool) -> session_pb2.SessionOpened:
        opened = session_pb2.SessionOpened(server_id=self._server_id)
        if is_control:
            self._granted = opened.credits = self._jobs.offer()
            opened.draining = self._jobs.is_draining
            for job in self._jobs.held.values():
                opened.held.add(execution_id=job.execution_id, claim_id=job.claim_id, confirmed_lines=job.outbox.confirmed_lines)
        return opened

    def _abandon(self) -> None:
        self._orphan_timer = None
        if stopped := self._jobs.stop_held(Stop.ORPHAN):
            log.warn('no dispatcher came back; its jobs are stopped', after_seconds=self._orphan_seconds, jobs=stopped)

    # both directions of one stream

    async def _exchange(
        self,
        stream: Stream,
        context: grpc.aio.ServicerContext,
        take: Callable[[Stream, Request], None],
        frames: Callable[[Stream], AsyncIterator[Response]],
    ) -> None:
        async def read() -> None:
            while (message := await context.read()) is not grpc.aio.EOF:
                take(stream, message)

        async def write() -> None:
            async for frame in frames(stream):
                await context.write(frame)

        tasks = [asyncio.create_task(part) for part in (read(), write(), stream.superseded.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if stream.superseded.is_set():
            raise RpcError('CONFLICT', f'another stream has taken over with epoch {self.epoch}')

    # control

    def _obey(self, stream: Stream, message: Request) -> None:
        match message.WhichOneof('message'):
            case 'start':
                self._granted = max(0, self._granted - len(message.start.jobs))
                for request in message.start.jobs:
                    self._start(stream, request)
                self._grant()
            case 'cancel':
                for claim_id in message.cancel.claim_ids:
                    if job := self._jobs.held.get(claim_id):
                        job.stop(Stop.CANCEL)
            case 'drop':
                for claim_id in message.drop.claim_ids:
                    if job := self._jobs.held.get(claim_id):
                        self._jobs.drop(job)
            case 'ping':
                stream.reply(Response(pong=session_pb2.Pong(nonce=message.ping.nonce)))
            case other:
                raise RpcError(
                    'FIELD_INVALID', f'`{other}` does not belong on the control stream', [('message', 'is of the other channel')]
                )
        if len(stream.replies) > _MOST_REPLIES:
            raise RpcError('OVERLOADED', 'the answers on the control stream are not read')

    def _start(self, stream: Stream, request: job_pb2.Job) -> None:
        if request.claim_id in self._jobs.held:
            return  # it was told twice, and will answer once
        try:
            if len(request.claim_id) != CLAIM_BYTES:
                raise RpcError('FIELD_INVALID', f'a claim has {CLAIM_BYTES} bytes', [('claim_id', f'must have {CLAIM_BYTES} bytes')])
            self._jobs.start(request, request.claim_id, self._enqueue, self._refuse_late, is_held=True)
        except Refused as refused:
            self._refuse(stream, request.claim_id, refused)

    def _refuse(self, stream: Stream, claim_id: bytes, refused: Refused) -> None:
        item = session_pb2.RefusedJobs.Item(claim_id=claim_id, reason=refused.reason)
        if stream.replies and stream.replies[-1].WhichOneof('message') == 'refused':
            stream.replies[-1].refused.items.append(item)
        else:
            stream.reply(Response(refused=session_pb2.RefusedJobs(items=[item])))

    def _refuse_late(self, job: Job, refused: Refused) -> None:
        if control := self._streams.get(Open.CONTROL):
            self._refuse(control, job.claim_id, refused)

    def _grant(self) -> None:
        if (control := self._streams.get(Open.CONTROL)) and (more := self._jobs.offer() - self._granted) > 0:
            self._granted += more
            control.credit += more
            control.wake.set()

    async def _control_frames(self, stream: Stream) -> AsyncIterator[Response]:
        while True:
            while stream.replies:
                yield stream.replies.popleft()
            if stream.credit:
                add, stream.credit = stream.credit, 0
                yield Response(credit=session_pb2.Credit(add=add))
            if not stream.replies and not stream.credit:
                stream.wake.clear()
                await stream.wake.wait()

    # output

    def _enqueue(self, outbox: Outbox) -> None:
        if output := self._streams.get(Open.OUTPUT):  # else the next one begins with everything
            self._news[outbox] = None
            output.wake.set()

    def _rewind(self, stream: Stream) -> None:
        self._news.clear()
        for job in self._jobs.held.values():
            job.outbox.rewind()
            self._news[job.outbox] = None
        stream.wake.set()

    def _confirm(self, stream: Stream, message: Request) -> None:
        if message.WhichOneof('message') != 'confirm':
            raise RpcError('FIELD_INVALID', 'the output stream takes confirmations only', [('message', 'is of the other channel')])
        for item in message.confirm.items:
            if job := self._jobs.held.get(item.claim_id):
                job.outbox.confirm(item.lines, item.started)
                if item.result and job.outbox.result is not None:
                    self._jobs.forget(item.claim_id)
        self._grant()

    async def _output_frames(self, stream: Stream) -> AsyncIterator[Response]:
        carried: list[session_pb2.OutputItem] = []
        while True:
            frame = session_pb2.OutputFrame(items=carried)
            size, carried = sum(item.ByteSize() for item in carried), []
            while self._news and size < FRAME_BYTES:
                outbox = next(iter(self._news))
                del self._news[outbox]
                if not outbox.has_news:
                    continue
                item, added = outbox.take(min(TURN_BYTES, FRAME_BYTES - size))
                if outbox.has_news:
                    self._news[outbox] = None
                if frame.items and size + added > FRAME_BYTES:
                    carried = [item]  # a large result travels alone
                    break
                frame.items.append(item)
                size += added
            if frame.items:
                yield Response(output=frame)
            elif not self._news:
                stream.wake.clear()
                await stream.wake.wait()
