"""What can go wrong on one machine. Each message is one line for the person at the terminal, with a remedy.

LocalError
├── BadSetting
├── PortTaken
├── DataInUse
├── ProgramFailed
└── ServerFailed
"""

from __future__ import annotations


class LocalError(Exception):
    """Something on this machine is in the way."""


class BadSetting(LocalError):
    """A variable in the environment has a value that can't be used."""


class PortTaken(LocalError):
    """A port that is asked for can't be listened on."""


class DataInUse(LocalError):
    """The data folder can't be used, most often because another supervisor uses it."""


class ProgramFailed(LocalError):
    """A program of ours failed, or failed too often."""


class ServerFailed(LocalError):
    """PostgreSQL or Valkey could not be started; the message carries the end of its log."""
