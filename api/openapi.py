"""What the OpenAPI document says of the answers that several routes share."""

from __future__ import annotations

from typing import Any

from api.problems import PROBLEM_MEDIA_TYPE
from api.schemas import Problem

_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}


def _problem(status: int, description: str) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": description,
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
        }
    }


PROBLEMS: dict[int, dict[int | str, dict[str, Any]]] = {
    status: _problem(status, description)
    for status, description in {
        409: "fewer tickets than are sold, if the client waited for the result",
        404: "there is no such thing",
        410: "the event was archived",
        413: "the body is too large",
        415: "the body is not JSON",
        422: "a field is wrong",
        429: "the line is full; see Retry-After",
        503: "a server that is needed does not answer; see Retry-After",
    }.items()
}
NEXT_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"Link": {"description": 'the next page, with rel="next"', "schema": _STRING}}}
}
REFUSED = _problem(400, "refused by the rules, if the client waited for it")
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "accepted, durably, at this position in line",
        "headers": {
            "Location": {"description": "the job", "schema": _STRING},
            "Retry-After": {"description": "seconds until it is worth to ask", "schema": _INTEGER},
            "Preference-Applied": {"description": "the wait that was honoured", "schema": _STRING},
        },
    }
}
