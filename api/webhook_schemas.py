"""What comes in and goes out over HTTP about webhooks, as the OpenAPI document shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from shared import limits

MessageTypeName = Literal["booking.created", "booking.cancelled", "event.sold_out"]
MessageStatusName = Literal["pending", "delivered", "failed"]

_ID = "01a206d1-6c60-7bd2-8c2f-3a2d6c1f0e9b"
_MOMENT = "2026-11-23T10:00:00.000000Z"
_WEBHOOK: JsonDict = {
    "id": _ID,
    "event_id": "01a206d0-11f2-7a2b-9d4e-5b8f0c7a6d31",
    "url": "https://example.com/onsale",
    "types": ["booking.created", "event.sold_out"],
    "status": "active",
    "disabled_reason": None,
    "failures": 0,
    "told_position": 12,
    "created_at": _MOMENT,
}
_MESSAGE: JsonDict = {
    "id": "6c0e7a55-0f53-8a5e-b7a5-1c9b5f0d2e4a",
    "webhook_id": _ID,
    "type": "booking.created",
    "position": 12,
    "status": "delivered",
    "attempts": 1,
    "next_attempt_at": None,
    "created_at": _MOMENT,
}


class WebhookRequest(BaseModel):
    """Where to tell what happens to an event."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"url": "https://example.com/onsale", "types": ["booking.created", "event.sold_out"]}
            ]
        },
    )

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=limits.WEBHOOK_URL_LENGTH_MAX,
            description="https, with a host whose addresses are all public",
        ),
    ]
    types: Annotated[list[MessageTypeName], Field(min_length=1, max_length=3, description="what to tell")]


class Webhook(BaseModel):
    """Where an organiser is told what happens to an event."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK]})

    id: str
    event_id: str
    url: str
    types: list[MessageTypeName]
    status: Literal["active", "disabled"]
    disabled_reason: str | None
    failures: Annotated[int, Field(description="attempts in a row that failed")]
    told_position: Annotated[int, Field(description="messages were made of the ledger up to here")]
    created_at: str


class WebhookWithSecret(Webhook):
    """A webhook with its secret, which is shown this once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_WEBHOOK | {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="}]
        }
    )

    secret: Annotated[str, Field(description="what messages are signed with (standardwebhooks.com)")]


class Webhooks(BaseModel):
    """The webhooks of an event."""

    items: list[Webhook]


class Message(BaseModel):
    """A message to a webhook and how far it has come."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MESSAGE]})

    id: Annotated[str, Field(description="the header webhook-id of every attempt")]
    webhook_id: str
    type: MessageTypeName
    position: Annotated[int, Field(description="of the command that it tells of, in the event's line")]
    status: MessageStatusName
    attempts: int
    next_attempt_at: str | None
    created_at: str


class Messages(BaseModel):
    """A page of messages, newest first. The last one has no `next_cursor`."""

    items: list[Message]
    next_cursor: str | None


class Attempt(BaseModel):
    """What came of sending a message once; without an error the target has taken it."""

    number: int
    attempted_at: str
    duration_ms: int
    status_code: int | None
    error: str | None


class MessageWithAttempts(Message):
    """A message with what is sent and the attempts to deliver it, newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _MESSAGE
                | {
                    "body": '{"type":"booking.created", … }',
                    "log": [
                        {
                            "number": 1,
                            "attempted_at": _MOMENT,
                            "duration_ms": 41,
                            "status_code": 200,
                            "error": None,
                        }
                    ],
                }
            ]
        }
    )

    body: str
    log: list[Attempt]
