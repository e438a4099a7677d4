"""The parent's program: `env -i python -I -S -X utf8 start.py DESCRIPTOR PLAN`."""

import importlib
import os
import sys

# what scripts import most, loaded once here instead of in each run. Of the standard library only: everything else is a user's choice
_PRELOADED = """
    asyncio base64 collections concurrent.futures contextlib copy csv dataclasses datetime decimal email.message enum functools hashlib
    html http.client inspect io itertools json logging math operator os pathlib pprint random re shutil statistics string subprocess
    tempfile textwrap threading time traceback types typing unicodedata urllib.parse urllib.request uuid zipfile zoneinfo
"""


def start() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    for name in _PRELOADED.split():
        importlib.import_module(name)
    sys.path.insert(0, os.path.dirname(folder))
    package = importlib.import_module(os.path.basename(folder))
    parent = importlib.import_module(f'{package.__name__}.parent')
    plan = importlib.import_module(f'{package.__name__}.plan')
    sys.path.pop(0)
    for name in [name for name in sys.modules if name.split('.')[0] == package.__name__]:
        del sys.modules[name]  # all of it is loaded, and a script may have a module of that name
    parent.main(int(sys.argv[1]), plan.Plan.read(sys.argv[2]))


if __name__ == '__main__':
    start()
