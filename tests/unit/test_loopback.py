"""With authentication off the API serves its own machine alone."""

from __future__ import annotations

import pytest

from api.loopback import OpenToOthers, check_loopback, refuse_to_be_open, told_host
from api.problems import ProblemError
from shared.loopback import is_loopback
from shared.settings import Authentication, Settings


def settings(auth: Authentication, *, anywhere: bool = False) -> Settings:
    return Settings(
        database_url="postgresql://nowhere",
        redis_url="redis://nowhere",
        auth=auth,
        auth_off_anywhere=anywhere,
    )


def test_loopback_is_told_from_other_addresses() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "192.168.0.7", "::", "fe80::1", "onsale.example", ""):
        assert not is_loopback(host)


def test_the_host_that_uvicorn_was_told_is_found() -> None:
    assert told_host(["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "80"]) == "0.0.0.0"
    assert told_host(["uvicorn", "--host=::"]) == "::"
    assert told_host(["uvicorn", "api.main:app"]) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7"])
def test_with_authentication_off_it_does_not_start_for_others(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr("sys.argv", ["uvicorn", "api.main:app", "--host", host])
    with pytest.raises(OpenToOthers, match="ONSALE_AUTH=required"):
        refuse_to_be_open(settings(Authentication.OFF))
    refuse_to_be_open(settings(Authentication.OFF, anywhere=True))
    refuse_to_be_open(settings(Authentication.REQUIRED))


def test_it_says_loudly_that_authentication_is_off(caplog: pytest.LogCaptureFixture) -> None:
    refuse_to_be_open(settings(Authentication.OFF))
    assert "AUTHENTICATION IS OFF" in caplog.text


def test_a_request_that_came_in_elsewhere_is_refused() -> None:
    for server in (("192.168.0.7", 8000), ("::ffff:10.0.0.1", 8000)):
        with pytest.raises(ProblemError):
            check_loopback(settings(Authentication.OFF), {"server": server})
        check_loopback(settings(Authentication.OFF, anywhere=True), {"server": server})
        check_loopback(settings(Authentication.REQUIRED), {"server": server})
    for near in (("127.0.0.1", 8000), ("/run/onsale.sock", None), None):
        check_loopback(settings(Authentication.OFF), {"server": near})
