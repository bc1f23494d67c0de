"""`python -m local`: what `make up` runs, in the foreground.

The exit code is 0 after a stop by signal, 1 when something was in the way, 2 when a setting can't be used.
"""

from __future__ import annotations

import os
import sys

from local.errors import BadSetting, LocalError
from local.open_files import allow_open_files
from local.settings import read_settings
from local.supervisor import Supervisor
from local.terminal import complain
from shared.limits import CONNECTIONS_MAX

OPEN_FILES = CONNECTIONS_MAX + 1_000
"""The API's connections and what else it has open; each child gets this limit."""


def main() -> int:
    """Run everything on this machine; gives the exit code."""
    allow_open_files(OPEN_FILES)
    try:
        Supervisor(read_settings(os.environ), os.environ).run()
    except BadSetting as error:
        complain(error)
        return 2
    except LocalError as error:
        complain(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
