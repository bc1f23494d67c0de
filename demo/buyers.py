"""Who comes, and what they want. Pure: the same options give the same buyers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from demo.options import Options

MODEST_WISHES = ((1,), (2,))
GREEDY_WISHES = ((2, 1), (3, 2, 1))
"""All that one may have and one more, before that more than may be asked for at once."""

PATIENT_SHARE = 0.05
WATCHING_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """`wishes` are the tickets asked for, one after the other; who is patient asks again when refused.

    Who watches wants to know their place in line; others wait for the result.
    """

    user_id: str
    wishes: Sequence[int]
    gives_back: bool
    is_patient: bool
    watches: bool


def make_buyers(options: Options) -> list[Buyer]:
    """All who come, greedy and modest ones mixed."""
    random = Random(options.seed)
    return [
        Buyer(
            user_id=f"buyer-{number}",
            wishes=random.choice(GREEDY_WISHES if random.random() < options.greedy_rate else MODEST_WISHES),
            gives_back=random.random() < options.cancel_rate,
            is_patient=random.random() < PATIENT_SHARE,
            watches=random.random() < WATCHING_SHARE,
        )
        for number in range(1, options.buyers + 1)
    ]
