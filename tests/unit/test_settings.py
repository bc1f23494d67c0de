"""Settings: what an operator gets told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.settings import Settings, explain_settings_error


def test_a_setting_out_of_bounds_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://localhost/onsale")
    monkeypatch.setenv("REDIS_URL", "redis://localhost:6379/0")
    monkeypatch.setenv("ONSALE_BATCH_COMMANDS_MAX", "0")
    with pytest.raises(ValidationError) as caught:
        Settings()
    explanation = explain_settings_error(caught.value)
    assert "ONSALE_BATCH_COMMANDS_MAX: " in explanation
    assert "DATABASE_URL: " in explanation
    assert "REDIS_URL" not in explanation


def test_defaults_hold_without_any_other_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/onsale")
    monkeypatch.setenv("REDIS_URL", "redis://localhost:6379/0")
    assert Settings().batch_commands_max == 1_000
