"""Unwrap fields that arrive as other servers' clients send them.

data        TorchServe's customary key: its value is what a body would be, a JSON object or a picture
instances   KServe's first protocol: a list of one JSON object of fields
inputs      KServe's second: a list of tensors, each a field by its name

What is inside obeys the same rules as without. Answers stay as docs/api.md says.
"""

import json
import math
from typing import Any

from genserve.serving.base64_text import decode
from genserve.serving.fields import BadRequest, echo, integer
from genserve.serving.uploads import FORMATS, is_picture

EXAMPLE = 'a JSON object, such as {"num_samples": 4}'
DATATYPES: dict[str, tuple[type, ...]] = (
    {"BOOL": (bool,), "BYTES": (str,)}
    | {f"{sign}INT{bits}": (int,) for sign in ("", "U") for bits in (8, 16, 32, 64)}
    | {f"FP{bits}": (int, float) for bits in (16, 32, 64)}
)
ENVELOPES = ("data", "instances", "inputs")
DIMENSIONS_MAX = 4  # of an input, which is a scalar or a list in the end
IGNORED = ("id", "parameters", "outputs")  # beside inputs: they name the request, or want another answer


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


def unwrapped(fields: dict[str, Any], picture: str | None) -> dict[str, Any]:
    """Return the fields of a JSON object that may hold them in `data`, `instances` or `inputs`.

    Args:
        picture: as in `joined`.

    Raises:
        BadRequest: what is in there is not what it must be.
    """
    fields = {name: value for name, value in fields.items() if value is not None or name not in ENVELOPES}
    if (value := fields.get("data")) is not None:
        fields = joined("data", opened("data", value), _without(fields, "data"), picture)
        fields = {name: inner for name, inner in fields.items() if inner is not None or name not in ENVELOPES}
    if (value := fields.get("instances")) is not None:
        fields = joined("instances", _instance(value), _without(fields, "instances"), picture)
    elif (value := fields.get("inputs")) is not None:
        fields = joined("inputs", _inputs(value), _without(fields, "inputs", *IGNORED), picture)
    return fields


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _instance(value: Any) -> dict[str, Any]:
    if not isinstance(value, list) or len(value) != 1:
        count = f"{len(value)} instances" if isinstance(value, list) else "not a list"
        raise BadRequest("instances", count, "a list of one: one request each")
    if not isinstance(value[0], dict):
        raise BadRequest("instances", "the instance is not a JSON object", EXAMPLE)
    return value[0]


def _inputs(value: Any) -> dict[str, Any]:
    example = '[{"name": "steps", "shape": [1], "datatype": "INT64", "data": [4]}]'
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadRequest("inputs", "not a list of JSON objects", example)
    fields: dict[str, Any] = {}
    for one in value:
        name = one.get("name")
        if not isinstance(name, str) or not name.strip():
            raise BadRequest("inputs", "an input without a name", example)
        if name in fields:
            raise BadRequest(echo(name), "two inputs of this name", "one")
        fields[name] = _tensor(echo(name), one)
    return fields


def _tensor(name: str, tensor: dict[str, Any]) -> Any:
    """Return an input's value: what a tensor of one element holds, else a list."""
    if unknown := [key for key in tensor if key not in ("name", "shape", "datatype", "data", "parameters")]:
        raise BadRequest(
            name, f"an input has no {echo(unknown[0])}", "name, shape, datatype, data, parameters"
        )
    datatype, shape, data = (tensor.get(key) for key in ("datatype", "shape", "data"))
    types = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if types is None:
        raise BadRequest(name, "no such datatype", ", ".join(DATATYPES))
    if not isinstance(data, list):
        raise BadRequest(name, "its data are not a list", "values in JSON (tritonclient: binary_data=False)")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadRequest(name, "its shape is not a list of whole numbers", f"[1], or [{len(data)}]")
    if len(shape) > DIMENSIONS_MAX:
        raise BadRequest(name, f"its shape has {len(shape)} dimensions", f"at most {DIMENSIONS_MAX}")
    for _ in shape[1:]:  # nested by the shape, or flat
        data = [inner for value in data for inner in (value if isinstance(value, list) else [value])]
    if math.prod(shape) != len(data) or sum(n != 1 for n in shape) > 1:
        raise BadRequest(name, f"{len(data)} values do not fill its shape", f"[1], or [{len(data)}]")
    if not all(type(value) in types for value in data):
        raise BadRequest(name, f"its data are not {datatype}", "values of its datatype")
    return data[0] if len(data) == 1 else data
