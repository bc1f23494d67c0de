"""What stands in the way of the supervisor before it starts anything."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from local.errors import DataInUse, PortTaken
from local.servers import free_port
from local.settings import LocalSettings, read_settings
from local.supervisor import Supervisor, check_ports, exclusive


def settings_with(tmp_path: Path, **variables: str) -> LocalSettings:
    ports = {"API_PORT": str(free_port()), "DASHBOARD_PORT": str(free_port())}
    return read_settings({**ports, "ONSALE_DATA_DIRECTORY": str(tmp_path / "data"), **variables})


@pytest.mark.parametrize("variable", ["API_PORT", "DASHBOARD_PORT"])
def test_a_taken_port_is_one_line_with_the_variable_and_nothing_is_started(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.supervisor.signal.signal", lambda *_: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = settings_with(tmp_path, **{variable: str(port)})
        with pytest.raises(PortTaken, match=f"^port {port} is taken .*{variable}") as caught:
            Supervisor(settings, {}).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_address_of_another_machine_is_refused_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match="API_HOST"):
        check_ports(settings_with(tmp_path, API_HOST="203.0.113.1", ONSALE_AUTH="required"))


def test_the_data_folder_is_for_one_supervisor_at_a_time(tmp_path: Path) -> None:
    with exclusive(tmp_path / "data"):
        with (
            pytest.raises(DataInUse, match=r"already runs .*ONSALE_DATA_DIRECTORY"),
            exclusive(tmp_path / "data"),
        ):
            pytest.fail("two at once")
    with exclusive(tmp_path / "data"):
        pass


def test_a_data_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataInUse, match=r"can't be used .*ONSALE_DATA_DIRECTORY"),
        exclusive(tmp_path / "file" / "data"),
    ):
        pytest.fail("there is no folder")
