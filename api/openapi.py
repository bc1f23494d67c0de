"""What the OpenAPI document says of the answers that several routes share."""

from __future__ import annotations

from typing import Any

from api.problems import PROBLEM_MEDIA_TYPE
from api.schemas import Job, Problem

_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}


RETRY_AFTER: dict[str, Any] = {
    "Retry-After": {"description": "seconds until it is worth to ask again", "schema": _INTEGER, "example": 1}
}


def _problem(status: int, description: str) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": description,
            "headers": RETRY_AFTER if status in (429, 503) else {},
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
        }
    }


PROBLEMS: dict[int, dict[int | str, dict[str, Any]]] = {
    status: _problem(status, description)
    for status, description in {
        401: "it is not known who asks; see WWW-Authenticate",
        403: "not for callers of this role",
        404: "there is no such thing",
        409: "it can't be done as things are; the problem says why",
        410: "the event was archived",
        413: "the body is too large",
        415: "the body is not JSON",
        422: "a field is wrong",
        429: "too many requests, or the line is full; see Retry-After",
        503: "a server that is needed does not answer, or too many wait; see Retry-After",
    }.items()
}
ADMISSION = {**PROBLEMS[401], **PROBLEMS[429], **PROBLEMS[503]}
"""What every route says that is not open to all."""

NEXT_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"Link": {"description": 'the next page, with rel="next"', "schema": _STRING}}}
}
PREFERENCE_HEADERS: dict[str, Any] = {
    "Preference-Applied": {
        "description": "what was honoured of Prefer",
        "schema": _STRING,
        "example": "wait=10",
    },
    "Vary": {"description": "`Prefer`", "schema": _STRING, "example": "Prefer"},
}
JOB_HEADERS: dict[str, Any] = {
    "ETag": {"description": "changes with the job", "schema": _STRING, "example": 'W/"5d1c3ba0c1d5e9f7"'},
    "Cache-Control": {
        "description": "a job that is done may be kept for ever, one that waits must be asked for again",
        "schema": _STRING,
        "example": "private, no-cache",
    },
    "Retry-After": {**RETRY_AFTER["Retry-After"], "description": "while it waits: when to ask again"},
    **PREFERENCE_HEADERS,
}
JOB_LINKS: dict[str, Any] = {
    name: {
        "operationId": f"{name}_job",
        "parameters": {"job_id": "$response.body#/id"},
        "description": description,
    }
    for name, description in {
        "get": "ask how far it has come",
        "stream": "be told how far it has come",
        "withdraw": "take it back while it waits",
    }.items()
}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {
        "description": "it has not changed since the ETag that was sent",
        "headers": {"ETag": JOB_HEADERS["ETag"]},
    }
}
REFUSED = _problem(400, "refused by the rules, if the client waited for it")


def noted(description: str) -> dict[int | str, dict[str, Any]]:
    """202 with a job, and what can be done with it."""
    return {
        202: {
            "model": Job,
            "description": description,
            "headers": {
                "Location": {"description": "the job", "schema": _STRING, "example": "/jobs/01a206d1-…"},
                "Retry-After": JOB_HEADERS["Retry-After"],
                **PREFERENCE_HEADERS,
            },
            "links": JOB_LINKS,
        }
    }


ACCEPTED = noted("accepted, durably, at this position in line")


_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")


def without_framework_errors(document: dict[str, Any]) -> dict[str, Any]:
    """The document without the 422 that FastAPI adds to every route with a parameter.

    It has a form of its own, which is never sent: what can be wrong with a request is said by each route.
    """
    theirs = f"#/components/schemas/{_FRAMEWORK_ERRORS[0]}"
    for operations in document["paths"].values():
        for operation in operations.values():
            answer = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
            if answer.get("schema", {}).get("$ref") == theirs:
                del operation["responses"]["422"]
    for name in _FRAMEWORK_ERRORS:
        document["components"]["schemas"].pop(name, None)
    return document


def without_security(document: dict[str, Any]) -> dict[str, Any]:
    """The document of an API that lets anyone do anything."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    document["components"].pop("securitySchemes", None)
    return document
