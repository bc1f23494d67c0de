"""What goes wrong on the way to Redis becomes one error; what is wrong with us does not."""

from __future__ import annotations

import pytest
import redis

from shared.errors import LineUnavailable
from shared.line.connections import line_errors


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("gone"),
        redis.exceptions.ResponseError("OOM"),
        ConnectionResetError("reset"),
        RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
    ],
)
def test_a_lost_redis_is_an_unavailable_line(error: Exception) -> None:
    with pytest.raises(LineUnavailable), line_errors():
        raise error


def test_a_defect_stays_a_defect() -> None:
    with pytest.raises(RuntimeError, match="ours"), line_errors():
        raise RuntimeError("ours")
