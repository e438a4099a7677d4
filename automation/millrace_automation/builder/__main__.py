"""`python -m millrace_automation.builder`: reads the settings from the environment and builds until told to stop."""

import os
import sys

from millrace_automation.server.settings import SettingsError

from .settings import read_settings


def start() -> int:
    try:
        settings = read_settings(os.environ)
    except SettingsError as faults:
        print(faults, file=sys.stderr)
        return 2
    sys.path.insert(0, str(settings.stubs))  # before anything that imports what was generated from the contracts
    from .main import run

    return run(settings)


if __name__ == '__main__':
    sys.exit(start())
