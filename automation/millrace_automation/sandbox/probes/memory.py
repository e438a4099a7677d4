"""Takes memory in several processes at once. Returns how many of them were lost."""

import os
import signal
import time


def main(processes: int, bytes_each: int) -> dict[str, int]:
    children = []
    for _ in range(processes):
        pid = os.fork()
        if pid == 0:
            kept = bytearray(os.urandom(4096)) * (bytes_each // 4096)
            time.sleep(1)
            os._exit(len(kept) & 0)
        children.append(pid)
    lost = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL for pid in children)
    return {'lost': lost}
