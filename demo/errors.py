"""Why a demo can't be run. Each message is one line for the person at the terminal, with a remedy."""

from __future__ import annotations


class DemoError(Exception):
    """Something is in the way."""
