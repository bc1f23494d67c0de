"""Bodies of requests: JSON that says so, read by its model straight from the bytes.

It is not left to FastAPI, which reads a body before it asks who sends it and takes JSON that does not say so.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from api.headers import joined_header
from api.problems import ProblemError, invalid_body, unsupported_media_type

MEDIA_TYPE = "application/json"

Model = TypeVar("Model")


class JsonBody(Generic[Model]):
    """Reads the bodies of a route. `documented` is what the OpenAPI document says of them."""

    def __init__(self, model: type[Model]) -> None:
        adapter = TypeAdapter(model)
        self._validate = adapter.validate_json
        self.documented: dict[str, Any] = {
            "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": adapter.json_schema()}}}
        }

    def read(self, body: bytes, content_type: str | None) -> Model:
        """What a body says.

        Raises:
            ProblemError: it is not said to be JSON, or something in it is wrong.
        """
        if content_type is None or content_type.partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise ProblemError(unsupported_media_type())
        try:
            return self._validate(body)
        except ValidationError as error:
            raise ProblemError(invalid_body(error)) from error

    async def of(self, request: Request) -> Model:
        """What the body of a request says.

        Raises:
            ProblemError: it is not said to be JSON, or something in it is wrong.
        """
        return self.read(await request.body(), joined_header(request, "content-type"))
