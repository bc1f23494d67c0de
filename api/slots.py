"""How many clients one API process keeps waiting at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import TooManyWaiting


class Slots:
    """A bound on what is open at a time."""

    def __init__(self, count_max: int, *, too_many: str) -> None:
        """`too_many` says what there is too much of."""
        self._count_max = count_max
        self._too_many = too_many
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Take one for the length of the block.

        Raises:
            TooManyWaiting: all are taken.
        """
        with self.take_if_free() as taken:
            if not taken:
                raise TooManyWaiting(self._too_many)
            yield

    @contextmanager
    def take_if_free(self) -> Iterator[bool]:
        """Take one for the length of the block, if one is free; gives whether it was."""
        if not self.try_take():
            yield False
            return
        try:
            yield True
        finally:
            self.give_back()

    def try_take(self) -> bool:
        """Take one until it is given back, if one is free; gives whether it was."""
        if self.taken >= self._count_max:
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        """Let another have one that was taken."""
        self.taken -= 1
