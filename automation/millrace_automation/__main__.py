"""`python -m millrace_automation`: reads the settings from the environment and serves until told to stop."""

import os
import sys

from millrace_automation.server.settings import SettingsError, read_settings


def start() -> int:
    try:
        settings = read_settings(os.environ)
    except SettingsError as faults:
        print(faults, file=sys.stderr)
        return 2
    os.environ.setdefault('GRPC_ENABLE_FORK_SUPPORT', 'false')  # its handlers break a child that is forked while calls are served
    sys.path.insert(0, str(settings.stubs))  # before anything that imports what was generated from the contracts
    from millrace_automation.server.main import run

    return run(settings)


if __name__ == '__main__':
    sys.exit(start())
