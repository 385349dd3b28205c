"""Read a client's fields: strictly out of JSON, as what the field is out of text.

A JSON body is taken as it is (4 is a number, "4" is not); form fields and query strings are text, in which
numbers are written as in JSON. null is "not given". Whatever is wrong is one `BadRequest` that names the
field and says what is allowed; its message repeats at most ECHO characters of what the client sent.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

from genserve.serving.base64_text import decode, split

NO_PICTURE = "a picture is text, in base64"
SAMPLES_MAX = 64  # images in one answer
ECHO = 40  # characters of a client's text in a message

WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")  # RFC 8259
NUMBER = re.compile(WHOLE.pattern + r"(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Python's True, R's TRUE, a checkbox's on
SWITCHES = {"true": True, "1": True, "yes": True, "on": True} | {
    "false": False, "0": False, "no": False, "off": False
}  # fmt: skip


class BadRequest(ValueError):  # noqa: N818 (the name that HTTP gives it)
    """A client's mistake: which field, what is wrong with it, what would be right, and HTTP's status."""

    def __init__(self, field: str, message: str, allowed: str = "", status: int = 400) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message, self.allowed, self.status = field, message, allowed, status

    def body(self) -> bytes:
        """Return the answer, JSON."""
        return problem(self.field, self.message, self.allowed)


def problem(field: str, message: str, allowed: str) -> bytes:
    """Return the JSON of an error: `error` is one line for people, the parts of it stand beside it.

    `error` is text because clients of KServe's protocol print it.
    """
    line = (f"{field}: " if field else "") + message + (f" (allowed: {allowed})" if allowed else "")
    return json.dumps({"error": line, "field": field, "message": message, "allowed": allowed}).encode()


def echo(text: str) -> str:
    """Return a client's text as a message may repeat it: short, and valid Unicode."""
    return text[:ECHO].encode(errors="replace").decode()


def integer(digits: str) -> int:
    """Return a whole number as JSON writes it; beyond 40 digits, of which no limit has as many, the first 40.

    Python refuses to read more than 4,300, with an error that names no field.
    """
    return int(digits[:40])


def _is_text(info: ValidationInfo) -> bool:
    return bool(info.context and info.context["text"])


def _whole(value: Any, info: ValidationInfo) -> Any:
    if _is_text(info) and WHOLE.fullmatch(value):
        return integer(value)
    if type(value) is not int:  # a bool is an int to Python
        raise ValueError("not a whole number")
    return value


def _real(value: Any, info: ValidationInfo) -> Any:
    text = _is_text(info)
    if type(value) is int or (text and WHOLE.fullmatch(value)):
        value = integer(str(value))
    elif text and NUMBER.fullmatch(value):
        value = float(value)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("not a finite number")
    return float(value)


def _switch(value: Any, info: ValidationInfo) -> Any:
    if _is_text(info):
        return SWITCHES.get(value.lower(), value)
    if isinstance(value, str) and value.lower() in SWITCHES:
        raise ValueError("true and false have no quotes in JSON")
    if not isinstance(value, (bool, str)):  # 1 equals True
        raise ValueError("no such value")
    return value


def _classes(value: Any, info: ValidationInfo) -> Any:
    if _is_text(info) and "," in value:
        value = [part.strip(" ") for part in value.split(",")]
    return _each(value, (int, str), "a class is a number or a name")


def _pictures(value: Any, info: ValidationInfo) -> Any:
    if _is_text(info) and isinstance(value, str) and "," in value:
        value = split(value)
    value = _each(value, (str, bytes), NO_PICTURE)
    if isinstance(value, list):
        return [_file(one, f"{info.field_name} {k}: ") for k, one in enumerate(value)]
    return _file(value, f"{info.field_name} 0: ")


def _picture(value: Any) -> Any:
    if type(value) not in (str, bytes):
        raise ValueError(NO_PICTURE)
    return _file(value)


def _file(value: str | bytes, name: str = "") -> bytes:
    """Return a file that arrived as it is, in multipart, or as base64 text."""
    try:
        return decode(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{name}{error}") from None


def _each(value: Any, types: tuple[type, ...], message: str) -> Any:
    """Check one value or a list of them; the length of a list before its items."""
    values = value if isinstance(value, list) else [value]
    if len(values) > SAMPLES_MAX:
        raise ValueError("the list is too long")
    if not all(type(one) in types for one in values):
        raise ValueError(message)
    return value


Label = Annotated[int | str | list[int | str] | None, BeforeValidator(_classes)]
Pictures = Annotated[bytes | list[bytes] | None, BeforeValidator(_pictures)]
Picture = Annotated[bytes, BeforeValidator(_picture)]
Count = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]
Watching = Annotated[Literal[True, False, "jsonl"], BeforeValidator(_switch)]


def field(
    default: Any,
    description: str,
    allowed: str = "",
    *,
    one_of: Sequence[str] = (),
    file: bool = False,
    body: bool = False,
    **settings: Any,
) -> Any:
    """Return a request's field.

    Args:
        allowed: what it may be, if neither `one_of`, nor the members of its Literal, nor its limits say that.
        one_of: the values that it may have; `Fields` checks them.
        file: a client may send it as a file.
        body: a file that is the whole body of a request is this field.
        settings: pydantic's; `ge` and `le` are its limits.
    """
    own: Any = {"allowed": allowed, "one_of": list(one_of), "file": file, "body": body}
    return Field(default, description=description, json_schema_extra=own, **settings)


def _own(info: FieldInfo) -> dict[str, Any]:
    """Return the arguments of `field` that are not pydantic's."""
    assert isinstance(info.json_schema_extra, dict)
    return info.json_schema_extra


class Fields(BaseModel):
    """What a client may send; every field is made by `field`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _one_of(cls, value: Any, info: ValidationInfo) -> Any:
        values = choices(cls, info.field_name or "")
        if values and isinstance(value, str) and value not in values:
            raise ValueError("no such value")
        return value


def files(kind: type[Fields], *, body: bool = False) -> list[str]:
    """Return the fields that may be sent as files; with `body`, the one that a whole body fills, if any."""
    return [name for name, info in kind.model_fields.items() if _own(info)["body" if body else "file"]]


def choices(kind: type[Fields], name: str) -> list[str]:
    """Return the values that a field may have, as a form writes them; none if they are not a list."""
    info = kind.model_fields[name]
    return _own(info)["one_of"] or _members(info.annotation)


def allowed(kind: type[Fields], name: str) -> str:
    """Return what a field may be, as text for errors and the API's page."""
    info = kind.model_fields[name]
    if own := _own(info)["allowed"]:
        return str(own)
    if values := choices(kind, name):
        return ", ".join(values)
    limits = {
        end: getattr(limit, end) for limit in info.metadata for end in ("ge", "le") if hasattr(limit, end)
    }
    return f"{limits['ge']} to {limits['le']}"


def _members(annotation: Any) -> list[str]:
    """Return the values that an annotation's Literals list, as a form writes them."""
    if get_origin(annotation) is Literal:
        return [str(value).lower() if isinstance(value, bool) else value for value in get_args(annotation)]
    return [value for part in get_args(annotation) for value in _members(part)]


Request = TypeVar("Request", bound=Fields)


def parse(kind: type[Request], fields: dict[str, Any], text: bool) -> Request:
    """Return a request from its fields.

    Args:
        text: the values are strings, as in a form or a query string.

    Raises:
        BadRequest: the first thing that is wrong.
    """
    for name in fields:
        if name not in kind.model_fields:
            names = ", ".join(kind.model_fields)
            if not name.strip():  # an error with an empty field is the server's own fault
                raise BadRequest("body", "a field without a name", names)
            raise BadRequest(echo(name), "there is no such field", names)
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind.model_validate(given, strict=True, context={"text": text})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        raise BadRequest(name, _message(first["type"], first["msg"]), allowed(kind, name)) from None


def _message(kind: str, message: str) -> str:
    """Return pydantic's finding in our words."""
    if kind == "value_error":  # raised above
        return message.removeprefix("Value error, ")
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        return "out of range"
    return "no such value"  # of a Literal
