"""The guide for receivers: its snippet works, and its figures are those of the code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from shared import limits
from shared.settings import Settings
from shared.webhooks.messages import MessageType
from shared.webhooks.schedule import REST_SECONDS, RETRY_SECONDS
from shared.webhooks.secrets import new_secret


@pytest.fixture
def guide(project_root: Path) -> str:
    return (project_root / "docs/webhooks.md").read_text()


def test_the_snippet_accepts_what_is_signed_and_nothing_else(guide: str) -> None:
    _, _, rest = guide.partition("```python\n")
    snippet: dict[str, Any] = {}
    exec(rest.partition("```")[0], snippet)
    secret, now, body = new_secret(), datetime.now(UTC), '{"type":"event.sold_out"}'

    def headers(moment: datetime) -> dict[str, str]:
        return {
            "webhook-id": "some-id",
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": Webhook(secret).sign("some-id", moment, body),
        }

    read = snippet["read_message"]
    assert read(secret, headers(now), body.encode()) == {"type": "event.sold_out"}
    assert read(secret, headers(now), body.encode() + b" ") is None
    assert read(new_secret(), headers(now), body.encode()) is None
    assert read(secret, headers(now - timedelta(minutes=6)), body.encode()) is None
    assert read(secret, {}, body.encode()) is None


def test_the_guide_names_every_type_and_the_figures_of_the_code(guide: str) -> None:
    for type in MessageType:
        assert f"| `{type.value}` |" in guide
    assert RETRY_SECONDS == (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert "5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h" in " ".join(guide.split())
    assert (len(REST_SECONDS), REST_SECONDS[0], REST_SECONDS[-1]) == (5, 1, 300)
    assert limits.WEBHOOKS_PER_EVENT_MAX == 10
    assert limits.WEBHOOK_MESSAGES_PENDING_MAX == 1_000
    assert limits.WEBHOOK_FAILING_SECONDS_MAX == 5 * 24 * 3600
    assert limits.WEBHOOK_OLD_SECRET_SECONDS == 24 * 3600
    assert Settings.model_fields["webhooks_attempt_seconds_max"].default == 10
    assert Settings.model_fields["webhooks_log_days"].default == 30
