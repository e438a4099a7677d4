"""The sandbox alone: how many fresh runs it starts a second, and the processor time of one by kind of process.

    python bench/sandbox.py [COUNT [TIER...]]

COUNT no-op scripts (default 600), eight at a time, in tier 2 and then in tier 1. Processor time holds still while others use the machine,
page faults more so; starts a second do not. `kernel` is what all of the machine's kernel threads did meanwhile, whoever they did it for.
Tier 1 needs a Python that every user may run, such as /usr/bin/python3.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE / 'automation'))

from millrace_automation.sandbox import Limits, Returned, Sandbox, SandboxSettings

AT_ONCE = 8
WARM_UP = 64
SCRIPT = 'def main(): return 1'


def milliseconds_of(pid: int | str) -> float:
    """What a process has computed so far, in milliseconds."""
    try:
        return int(Path(f'/proc/{pid}/schedstat').read_text().split()[0]) / 1e6
    except OSError:
        return 0.0


def stat_of(pid: int) -> list[str]:
    """The fields of its line behind its name."""
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()


def of_ended_children(pid: int) -> float:
    user, system = stat_of(pid)[13:15]
    return (int(user) + int(system)) * 1000 / os.sysconf('SC_CLK_TCK')


def page_faults(pid: int) -> tuple[int, int]:
    """Its own and those of its ended children: what a start copies. They do not depend on what else the machine does."""
    own, children = stat_of(pid)[7:9]
    return int(own), int(children)


def of_kernel_threads() -> float:
    return sum(milliseconds_of(folder.name) for folder in Path('/proc').glob('[0-9]*') if is_kernel_thread(folder))


def is_kernel_thread(folder: Path) -> bool:
    try:
        return not (folder / 'cmdline').read_bytes() and (folder / 'stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


async def run(sandbox: Sandbox, count: int) -> None:
    for _ in range(count):
        process = await sandbox.launch(SCRIPT, '{}', Limits())
        assert [event async for event in process.events()][:1] == [Returned('1')]


async def measure(tier: int, count: int) -> None:
    settings = SandboxSettings(1, HERE / 'build/environments', slots=AT_ONCE, prepared=AT_ONCE // 2, force_tier_at_most=tier)
    sandbox = await Sandbox.start(settings)
    try:
        if sandbox.tier != tier:
            print(f'tier {tier} is not to be had: {sandbox.faults}')
            return
        await asyncio.gather(*[run(sandbox, WARM_UP // AT_ONCE) for _ in range(AT_ONCE)])
        (nursery,) = sandbox._nurseries.values()
        await nursery.warm_up()
        parent = nursery.facts['pid']

        def spent() -> dict[str, float]:
            return {
                'server': time.process_time() * 1000,
                'parent': milliseconds_of(parent),
                'children': of_ended_children(parent),
                'kernel': of_kernel_threads(),
            }

        before, faults, start = spent(), page_faults(parent), time.monotonic()
        await asyncio.gather(*[run(sandbox, count // AT_ONCE) for _ in range(AT_ONCE)])
        rate = count / (time.monotonic() - start)
        await asyncio.sleep(0.5)  # for what the kernel does afterwards; no figure depends on how long
        after = spent()
        copied = [(late - early) / count for early, late in zip(faults, page_faults(parent), strict=True)]
        parts = {name: (after[name] - before[name]) / count for name in before}
        told = ', '.join(f'{name} {ms:.2f}' for name, ms in parts.items())
        total = sum(ms for name, ms in parts.items() if name != 'kernel')
        print(f'tier {tier}: {rate:.0f} starts/s (load {os.getloadavg()[0]:.1f}); processor ms each: {told}; without kernel {total:.2f}')
        print(f'  page faults each: parent {copied[0]:.0f}, children {copied[1]:.0f}')
    finally:
        await sandbox.stop()


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    for tier in [int(tier) for tier in sys.argv[2:]] or [2, 1]:
        await measure(tier, count)


asyncio.run(main())
