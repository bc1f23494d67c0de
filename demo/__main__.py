"""`python -m demo`, or `make demo`: a stampede to look at, with a verdict.

The exit code is 0 if everything was true, 1 if anything was not, 2 if the demo could not be run.
"""

from __future__ import annotations

import os
import signal
import sys

from demo.course import run_demo
from demo.errors import DemoError
from demo.options import read_options, request_headers
from demo.view import open_view


def main() -> int:
    """Run a demo; gives the exit code."""
    # So that a demo that is told to stop still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        options = read_options()
        with open_view() as view:
            return 0 if run_demo(options, request_headers(os.environ), view) else 1
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
