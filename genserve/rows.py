"""A client's fields, out of the ways in which TorchServe hands them over.

A dict under "body" for JSON, raw bytes for anything else, separate fields for forms and query strings.
Picture files become base64 text, as they are in JSON.
"""

import json
from typing import Any

from genserve.fields import BadRequest
from genserve.uploads import encoded, is_picture

FILES = ("images", "mask")


def fields_of(row: dict[str, Any], headers: dict[str, str]) -> tuple[dict[str, Any], bool]:
    """Return one request's fields, and whether their values are text (a form or a query string).

    Raises:
        BadRequest: the body is not a JSON object, or cannot be read at all, or fields come beside it.
    """
    row = dict(row)
    body = row.pop("body", None)
    if isinstance(body, (bytes, bytearray)) and is_picture(body):
        if "images" in row:
            raise BadRequest("images", "a picture as the body and others beside it", "one or the other")
        row["images"], body = body, None
    text = {name: _text(name, value) for name, value in row.items() if name != "model_name"}
    explained = headers.get("explain") == "True"  # the host's own header, on /explanations
    if isinstance(body, (bytes, bytearray, str)):
        body = _json(body) if body.strip() else None
    if body is None:
        sent = {name.lower(): value for name, value in headers.items()}
        if not text and sent.get("content-length", "0") != "0":
            # `curl -d '{...}'` without a content type is taken for a form, of which the host finds no field.
            raise BadRequest(
                "body",
                "the body is neither JSON nor form fields",
                "a JSON body wants Content-Type: application/json",
            )
        return _explained(text) if explained else text, True
    if not isinstance(body, dict):
        raise BadRequest("body", "the body is not a JSON object", 'a JSON object, such as {"num_samples": 4}')
    if text:
        raise BadRequest("body", "fields both in a JSON body and beside it", "one or the other")
    return _explained(body) if explained else body, False


def _explained(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request to /explanations."""
    if fields.get("task", "explain") != "explain":
        raise BadRequest("task", "this address explains", "explain, or POST /predictions")
    return fields | {"task": "explain"}


def _text(name: str, value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        if name in FILES and not value.isascii():
            return encoded(bytes(value))
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value
    # The host parses a part that was sent as a JSON file.
    raise BadRequest(name[:40], "not text", "a form field without a content type of its own")


def _json(body: bytes | bytearray | str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(
            "body",
            "the body is not JSON",
            'nothing, form fields, or a JSON object such as {"num_samples": 4}',
        ) from None
