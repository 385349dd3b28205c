"""Take a client's fields out of what TorchServe hands over.

A row has under "body" what the host parsed, for JSON, or raw bytes, for anything else; forms and query
strings are separate fields. Files stay bytes; only JSON has them as base64 text.
"""

from typing import Any

from genserve.serving.envelopes import EXAMPLE, joined, opened, unwrapped
from genserve.serving.fields import BadRequest, Fields, echo, files
from genserve.serving.uploads import FORMATS, is_picture


def fields_of(
    row: dict[str, Any], headers: dict[str, Any], kind: type[Fields]
) -> tuple[dict[str, Any], bool]:
    """Return one request's fields, and whether their values are text (a form or a query string).

    Args:
        row: by name, bytes, text, or what the host parsed out of JSON.
        headers: by name as the client spelt it; the host adds an entry for each form field, which is no text.
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
        name: _value(name, value, name in files(kind))
        for name, value in row.items()
        if name not in ("body", "data", "model_name")
    }
    picture = next(iter(files(kind, body=True)), None)
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
    if not text:
        fields = unwrapped(fields, picture)
    if headers.get("explain") == "True":  # the host's own header, on /explanations
        if fields.get("task") not in (None, "explain"):
            raise BadRequest("task", "this address explains", "explain, or POST /predictions")
        fields = fields | {"task": "explain"}
    return fields, text


def _empty(body: Any) -> bool:
    return isinstance(body, (bytes, bytearray, str)) and not body.strip()


def _value(name: str, value: Any, file: bool) -> str | bytes:
    if isinstance(value, (bytes, bytearray)):
        if file and is_picture(value):
            return bytes(value)
        try:
            return value.decode()
        except ValueError:
            pictures = f"a picture file ({', '.join(FORMATS)}), or " if file else ""
            raise BadRequest(echo(name), "not text", f"{pictures}text in UTF-8") from None
    if isinstance(value, str):
        return value
    # The host parses a part that was sent as a JSON file.
    raise BadRequest(echo(name), "not text", "a form field without a content type of its own")
