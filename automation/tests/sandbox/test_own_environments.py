"""Environments that come and go while a server runs."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from millrace_automation.sandbox import Limits, Sandbox, SandboxSettings

DIGEST = 'a' * 64
IMPORTS = 'import tiny\ndef main():\n    return tiny.VERSION'
WRITES = """
import tiny, os
def main():
    try:
        open(os.path.join(os.path.dirname(tiny.__file__), 'left'), 'w').close()
    except OSError as fault:
        return type(fault).__name__
"""


def build(folder: Path, version: int) -> None:
    made = folder / '.building'
    made.mkdir(parents=True)
    (made / 'tiny.py').write_text(f'VERSION = {version}\n')
    (made / 'tiny.py').chmod(0o644)
    made.chmod(0o755)
    made.rename(folder / DIGEST)


@pytest.fixture
async def own(environments, open_folder):
    folder = Path(tempfile.mkdtemp(dir=open_folder))
    folder.chmod(0o755)  # scripts run as users of their own
    (folder / 'base').symlink_to((environments / 'base').resolve())
    tier = int(os.environ.get('MILLRACE_TEST_TIER', '2'))
    sandbox = await Sandbox.start(SandboxSettings(1, folder, slots=2, prepared=1, force_tier_at_most=tier))
    yield sandbox, folder
    await sandbox.stop()


async def test_they_are_seen_when_they_are_there_and_anew_when_they_were_built_again(own, outcome):
    sandbox, folder = own

    async def run(source: str = IMPORTS) -> str:
        return (await outcome().read(await sandbox.launch(source, '{}', Limits(), environment=DIGEST))).output

    assert not sandbox.has_environment(DIGEST)
    build(folder, 1)
    assert sandbox.has_environment(DIGEST)
    assert await run() == '1'
    assert await run(WRITES) in ('"OSError"', '"PermissionError"')
    shutil.rmtree(folder / DIGEST)
    assert not sandbox.has_environment(DIGEST)
    with pytest.raises(ValueError, match='no environment'):
        await run()
    build(folder, 2)
    assert await run() == '2'
    assert sandbox.has_environment('base')
