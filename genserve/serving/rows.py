"""Take a client's fields out of what TorchServe hands over.

A row has under "body" what the host parsed, for JSON, or raw bytes, for anything else; forms and query
strings are separate fields. Picture files become base64 text, as they are in JSON.
"""

from typing import Any

from genserve.serving.envelopes import EXAMPLE, joined, opened, unwrapped
from genserve.serving.fields import BadRequest, echo
from genserve.serving.uploads import FORMATS, encoded, is_picture

FILES = ("images", "mask")


def fields_of(row: dict[str, Any], headers: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return one request's fields, and whether their values are text (a form or a query string).

    Args:
        row: by name, bytes, text, or what the host parsed out of JSON.
        headers: by name as the client spelt it; the host adds an entry for each form field, which is no text.

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
        name: _text(name, value) for name, value in row.items() if name not in ("body", "data", "model_name")
    }
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
        fields, text = joined(name, content, fields), text and isinstance(content, str)
    if not text:
        fields = unwrapped(fields)
    if headers.get("explain") == "True":  # the host's own header, on /explanations
        if fields.get("task") not in (None, "explain"):
            raise BadRequest("task", "this address explains", "explain, or POST /predictions")
        fields = fields | {"task": "explain"}
    return fields, text


def _empty(body: Any) -> bool:
    return isinstance(body, (bytes, bytearray, str)) and not body.strip()


def _text(name: str, value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        if name in FILES and is_picture(value):
            return encoded(bytes(value))
        try:
            return value.decode()
        except ValueError:
            pictures = f"a picture file ({', '.join(FORMATS)}), or " if name in FILES else ""
            raise BadRequest(echo(name), "not text", f"{pictures}text in UTF-8") from None
    if isinstance(value, str):
        return value
    # The host parses a part that was sent as a JSON file.
    raise BadRequest(echo(name), "not text", "a form field without a content type of its own")
