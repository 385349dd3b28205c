"""Unwrap fields that arrive as other servers' clients send them.

data        TorchServe's customary key: its value is what a body would be, a JSON object or a picture
instances   KServe's first protocol: a list of JSON objects of fields, a request each
inputs      KServe's second: a list of tensors, each a field by its name

The host hands all its addresses to one handler and does not say which was called, so the body decides. What
is inside obeys the same rules as without. The answer to `data` is a plain one; the protocols have their own.
"""

import json
from functools import partial
from typing import Any

from genserve.serving.base64_text import decode
from genserve.serving.fields import BadRequest, Fields, body_field, echo
from genserve.serving.instances import Instances, fit_for_json, listed, without_b64
from genserve.serving.tensors import BESIDE, Tensors, tensors
from genserve.serving.uploads import FORMATS, is_picture
from genserve.serving.values import integer

EXAMPLE = 'a JSON object, such as {"num_samples": 4}'
ENVELOPES = ("data", "instances", "inputs")
Envelope = Instances | Tensors


def opened(name: str, value: Any) -> dict[str, Any] | bytes:
    """Return the fields in the value of `body` or `data`, or a picture's file.

    Args:
        name: body or data; in `data` a picture may be base64 text already.
        value: bytes, text, or what the host has parsed.

    Raises:
        BadRequest: it is neither.
    """
    expected = f"{EXAMPLE}, or a picture file ({', '.join(FORMATS)})"
    if isinstance(value, (bytes, bytearray)):
        if is_picture(value):
            return bytes(value)
        try:
            value = value.decode("utf-8-sig")
        except ValueError:
            raise BadRequest(name, "neither UTF-8 text nor a picture", expected) from None
    if isinstance(value, str):
        if name == "data" and not value.lstrip().startswith(("{", "[")):
            try:
                if is_picture(picture := decode(value)):
                    return picture
            except ValueError as error:
                raise BadRequest(name, f"neither JSON nor a picture: {error}", expected) from None
        try:
            value = json.loads(value, parse_int=integer)
        except (ValueError, RecursionError):
            if value.lstrip().startswith("{"):  # a text may also be what the host parsed out of a JSON string
                raise BadRequest(name, f"the {name} is not JSON", expected) from None
    if not isinstance(value, dict):
        raise BadRequest(name, f"the {name} is not a JSON object", EXAMPLE)
    return value


def joined(
    name: str, content: dict[str, Any] | bytes, beside: dict[str, Any], picture: str | None
) -> dict[str, Any]:
    """Return all fields of a request: those that `name` held and those beside it.

    Args:
        picture: the field that a picture is; None if the model takes none.

    Raises:
        BadRequest: they are in both places; only a picture may have fields beside it.
    """
    if isinstance(content, bytes):
        if picture is None:
            raise BadRequest(name, "a picture, and this model takes none", EXAMPLE)
        if beside.get(picture) is not None:
            raise BadRequest(picture, f"a picture as the {name} and others beside it", "one or the other")
        return beside | {picture: content}
    for other, value in beside.items():
        if value is not None:
            raise BadRequest(name, f"fields both in {name} and beside it ({echo(other)})", "one or the other")
    return content


def unwrapped(fields: dict[str, Any], kind: type[Fields]) -> dict[str, Any] | Envelope:
    """Return the fields of a JSON object that may hold them in `data`, or the requests of a protocol.

    Args:
        kind: the requests of the model.

    Raises:
        BadRequest: what is in there is not what it must be.
    """
    picture = body_field(kind)
    fields = {name: value for name, value in fields.items() if value is not None or name not in ENVELOPES}
    fields = _of_data(fields, picture)
    fields = {name: inner for name, inner in fields.items() if inner is not None or name not in ENVELOPES}
    if (value := fields.get("instances")) is not None:
        joined("instances", {}, _without(fields, "instances"), picture)
        return Instances([partial(_instance, one, picture) for one in listed(value)])
    if fields.get("inputs") is not None:
        joined("inputs", {}, _without(fields, "inputs", *BESIDE), picture)
        return tensors(fields, kind)
    return fields


def _of_data(fields: dict[str, Any], picture: str | None) -> dict[str, Any]:
    """Return the fields of a JSON object that may hold them, or a picture, in `data`."""
    if (value := fields.get("data")) is None:
        return fields
    return joined("data", opened("data", value), _without(fields, "data"), picture)


def _instance(instance: Any, picture: str | None) -> dict[str, Any]:
    return fit_for_json("instances", _of_data(without_b64(instance), picture))


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
