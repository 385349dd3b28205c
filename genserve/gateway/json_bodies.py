"""Read the JSON bodies of the gateway's own routes, as strictly as the server reads a client's fields."""

import json
from typing import Any, NoReturn

from fastapi import Request

from genserve.serving.fields import BadRequest, Fields, parse
from genserve.serving.fields import Request as Kind

BODY_MAX = 65_536  # bytes


async def read(request: Request, kind: type[Kind]) -> Kind:
    """Return the fields of a body; an empty one has none.

    Raises:
        BadRequest: the body is too long, or no JSON object with these fields.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX:
            raise BadRequest("body", "the body is too long", f"at most {BODY_MAX} bytes", 413)
    return parse(kind, _object(body) if body.strip() else {}, text=False)


def described(kind: type[Fields]) -> dict[str, Any]:
    """Return what FastAPI needs to describe a body that `read` reads."""
    schema = kind.model_json_schema()
    for entry in schema["properties"].values():
        for ours in ("one_of", "file", "body"):
            entry.pop(ours, None)
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest("body", "the body is no JSON object")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
