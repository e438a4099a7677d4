"""A process that stays: it loads the script once and calls its `main` for one run after the other.

Only a script with a `main` function, whose run ended with a value or an ordinary exception, goes on; every other end ends the process.
"""

import os
import socket
from typing import Any

from . import execution, hygiene, network
from .channel import DESCRIPTOR, PARSED, Channel
from .residence import ARM, DESCRIPTORS, DONE


class Kept(execution.Script):
    """Is loaded by the first run. `main` runs in a context of its own each time."""

    def __init__(self, source: str, channel: Channel):
        super().__init__(source)
        self._channel = channel
        self._state: hygiene.State  # from `loaded` on

    def parsed(self) -> None:
        self._channel.send(PARSED, b'1' if self.has_main else b'')

    def loaded(self) -> None:
        if self.main is not None:
            self._state = hygiene.State(os.getcwd(), self.source)
            self.is_kept = True
            self._channel.tells_usage = False

    def call(self, given: dict[str, Any]) -> Any:
        return self._state.begin().run(super().call, given)

    def restore(self) -> None:
        self._state.restore()


def serve(request: dict[str, Any], channel: Channel, begin: socket.socket) -> int:
    """Returns the exit code of the process."""
    script = Kept(request['source'], channel)
    request['source'] = ''
    while True:
        execution.set_trace(request['traceparent'])
        channel.give(request)
        network.open_gate(request)
        code, is_well = execution.judge(channel, request['input'], script)
        if not is_well or not channel.is_own:  # a process that the script forked ends here
            return code
        network.close_gate()
        script.restore()
        begin.send(DONE)
        request = _next(channel, begin)


def _next(channel: Channel, begin: socket.socket) -> dict[str, Any]:
    packet, descriptors, _, _ = socket.recv_fds(begin, 64, DESCRIPTORS)
    if packet != ARM or len(descriptors) != DESCRIPTORS:
        os._exit(0)  # nobody needs this process
    for target, descriptor in zip((1, 2, DESCRIPTOR), descriptors, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    channel.renew()
    request, _ = channel.receive()
    channel.send(PARSED, b'1')
    return request
