"""Take a client's fields out of what TorchServe hands over.

A row has the bytes of a body under "body"; forms and query strings are separate fields. A host without
decode_input_request=false of config.properties hands over JSON as it has parsed it, and text/* as text, which
is read alike. Files stay bytes; only JSON has them as base64 text.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from genserve.serving.envelopes import EXAMPLE, Envelope, joined, opened, unwrapped
from genserve.serving.fields import BadRequest, Fields, body_field, echo, files, title
from genserve.serving.instances import Instances
from genserve.serving.uploads import FORMATS, is_picture


def fields_of(
    row: dict[str, Any], headers: dict[str, Any], kind: type[Fields]
) -> tuple[dict[str, Any], bool] | Envelope:
    """Return one request's fields, and whether their values are text (a form or a query string).

    A body in one of KServe's protocols is an envelope of several requests.

    Args:
        row: by name, bytes, text, or what the host parsed out of JSON.
        headers: by name as the client spelt it; the host adds an entry for the body and for each form field,
            which is no text, but has the content type of that part.
        kind: the request, which says which of its fields are files.

    Raises:
        BadRequest: the body is not a JSON object, or cannot be read at all, or fields come beside it.
    """
    sent = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    coding = sent.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        message = f"this server does not unpack Content-Encoding {echo(coding)}"
        raise BadRequest("body", message, "a body that is not compressed", 415)
    if "inference-header-content-length" in sent:
        raise BadRequest("inputs", "binary tensors", "data in JSON (tritonclient: binary_data=False)")
    fields = {
        name: _value(name, _part(value, headers.get(name)), name in files(kind))
        for name, value in row.items()
        if name not in ("body", "data", "model_name")
    }
    picture = body_field(kind)
    text, contents = True, {name: row[name] for name in ("body", "data") if name in row}
    if _empty(contents.get("body", b"")):
        contents.pop("body", None)
    if not contents and not fields and sent.get("content-length", "0") != "0":
        # `curl -d '{...}'` without a content type is taken for a form, of which the host finds no field.
        if sent.get("content-type", "").lower().startswith("application/json"):
            raise BadRequest("body", "the body is not a JSON object", EXAMPLE)
        message = "the body is neither JSON nor form fields"
        raise BadRequest("body", message, "a JSON body wants Content-Type: application/json")
    for name, value in contents.items():
        content = opened(name, value)
        fields, text = joined(name, content, fields, picture), text and isinstance(content, bytes)
    explain = headers.get("explain") == "True"  # the host's own header, on /explanations and :explain
    inner = fields if text else unwrapped(fields, kind)
    if not isinstance(inner, dict):
        return _explaining(inner) if explain else inner
    return (_explained(lambda: inner) if explain else inner), text


def _explained(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return fields whose task is to explain."""
    fields = read()
    if fields.get("task") not in (None, "explain"):
        raise BadRequest("task", "this address explains", "explain, or POST /predictions")
    return fields | {"task": "explain"}


def _explaining(envelope: Envelope) -> Envelope:
    reads: list[Callable[[], dict[str, Any]]] = [partial(_explained, read) for read in envelope.reads]
    if isinstance(envelope, Instances):
        return replace(envelope, reads=reads, answer="explanations")
    return replace(envelope, reads=reads)


def _empty(body: Any) -> bool:
    return isinstance(body, (bytes, bytearray, str)) and not body.strip()


def _part(value: Any, header: Any) -> Any:
    """Return a part of a form: what it is in JSON, if it was sent as that."""
    if isinstance(header, dict) and header.get("content-type") == "application/json":
        with contextlib.suppress(
            ValueError, RecursionError, TypeError
        ):  # of a host that has parsed it already
            return json.loads(value)
    return value


def _value(name: str, value: Any, file: bool) -> str | bytes:
    if isinstance(value, (bytes, bytearray)):
        if file and is_picture(value):
            return bytes(value)
        try:
            return value.decode()
        except ValueError:
            pictures = f"a picture file ({', '.join(FORMATS)}), or " if file else ""
            raise BadRequest(title(name), "not text", f"{pictures}text in UTF-8") from None
    if isinstance(value, str):
        return value
    raise BadRequest(title(name), "not text", "a form field without a content type of its own")
