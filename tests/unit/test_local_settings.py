"""What `make up` reads from the environment, and what it tells the person who set it."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.errors import BadSetting
from local.restarts import RESTARTS_MAX, RESTARTS_SECONDS, RestartBudget
from local.settings import WORKERS_MAX, read_settings
from local.terminal import describe, describe_exit, quote, without_password


def test_without_any_variable_everything_has_its_default() -> None:
    settings = read_settings({})
    assert (settings.workers, settings.api_host) == (2, "127.0.0.1")
    assert (settings.api_port, settings.dashboard_port) == (8000, 9181)
    assert (settings.database_url, settings.redis_url) == (None, None)
    assert settings.data_directory == Path.cwd() / ".data"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_settings({"WORKERS": "", "DATABASE_URL": "", "API_HOST": ""}) == read_settings({})


def test_every_variable_is_heeded() -> None:
    settings = read_settings(
        {
            "WORKERS": str(WORKERS_MAX),
            "API_HOST": "0.0.0.0",
            "ONSALE_AUTH": "required",
            "API_PORT": "1234",
            "DASHBOARD_PORT": "65535",
            "DATABASE_URL": "postgresql://somewhere/onsale",
            "REDIS_URL": "rediss://somewhere:6380/1",
            "ONSALE_DATA_DIRECTORY": "/elsewhere",
        }
    )
    assert (settings.workers, settings.api_host) == (WORKERS_MAX, "0.0.0.0")
    assert (settings.api_port, settings.dashboard_port) == (1234, 65535)
    assert settings.database_url == "postgresql://somewhere/onsale"
    assert settings.redis_url == "rediss://somewhere:6380/1"
    assert settings.data_directory == Path("/elsewhere")


def test_without_authentication_it_listens_to_this_machine_only() -> None:
    with pytest.raises(BadSetting, match="ONSALE_AUTH=required"):
        read_settings({"API_HOST": "0.0.0.0"})
    assert read_settings({"API_HOST": "::1"}).api_host == "::1"
    assert read_settings({"API_HOST": "0.0.0.0", "ONSALE_AUTH_OFF_ANYWHERE": "true"}).api_host == "0.0.0.0"


def test_it_says_loudly_whether_callers_are_asked_who_they_are() -> None:
    environment = {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h/0"}
    told = describe(read_settings({}), environment, Path("environment"))
    assert "AUTHENTICATION IS OFF" in told
    told = describe(read_settings({"ONSALE_AUTH": "required"}), environment, Path("environment"))
    assert "AUTHENTICATION IS OFF" not in told


@pytest.mark.parametrize("variable", ["WORKERS", "API_PORT", "DASHBOARD_PORT"])
@pytest.mark.parametrize("value", ["0", "-1", "65536", "two", "1.5", "²", " "])
def test_a_wrong_number_is_named_with_its_variable_and_bounds(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=f"^{variable} is .*whole number from 1 to") as caught:
        read_settings({variable: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_a_wrong_url_is_named_without_its_password(variable: str) -> None:
    with pytest.raises(BadSetting, match=f"^{variable} must begin with") as caught:
        read_settings({variable: "mysql://user:secret@somewhere/"})
    assert "secret" not in str(caught.value)


def test_one_port_for_two_is_refused() -> None:
    with pytest.raises(BadSetting, match="API_PORT and DASHBOARD_PORT"):
        read_settings({"API_PORT": "9000", "DASHBOARD_PORT": "9000"})


def test_restarts_are_allowed_up_to_the_bound_and_again_when_time_has_passed() -> None:
    budget = RestartBudget()
    assert all(budget.spend(float(moment)) for moment in range(RESTARTS_MAX))
    assert not budget.spend(RESTARTS_SECONDS - 0.1)
    assert budget.spend(RESTARTS_SECONDS)
    assert not budget.spend(RESTARTS_SECONDS)


def test_a_password_is_not_shown() -> None:
    assert without_password("postgresql://ann:secret@host:1/onsale") == "postgresql://ann:***@host:1/onsale"
    assert without_password("redis://:secret@host:1/0") == "redis://:***@host:1/0"
    assert without_password("redis://host:1/0") == "redis://host:1/0"


def test_an_exit_is_told_with_the_name_of_its_signal() -> None:
    assert describe_exit(3) == "status 3"
    assert describe_exit(-9) == "status -9 (SIGKILL)"


def test_a_quoted_text_is_one_word_of_a_shell() -> None:
    assert quote("it's $HOME") == """'it'"'"'s $HOME'"""
