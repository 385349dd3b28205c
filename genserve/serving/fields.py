"""Read a client's fields: strictly out of JSON, as what the field is out of text.

A JSON body is taken as it is (4 is a number, "4" is not); form fields and query strings are text, in which
numbers are written as in JSON. null is "not given". Whatever is wrong is one `BadRequest` that names the
field and says what is allowed; its message repeats at most ECHO characters of what the client sent.
"""

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

ECHO = 40  # characters of a client's text in a message


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


def title(name: str) -> str:
    """Return what an error calls a field: `body` if it has no name, because the server's faults have none."""
    return echo(name) if name.strip() else "body"


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

    # What an answer in KServe's second protocol can consist of, n requests of k items each: name -> datatype,
    # shape and meaning. And the key of the JSON answer that lists an object for each item.
    outputs: ClassVar[dict[str, tuple[str, str, str]]] = {}
    items: ClassVar[str] = ""

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


def body_field(kind: type[Fields]) -> str | None:
    """Return the field that a file fills which is a whole body; None if the model takes no such file."""
    return next(iter(files(kind, body=True)), None)


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
    if info.annotation is bool:
        return "true, false"
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
            message = "there is no such field" if name.strip() else "a field without a name"
            raise BadRequest(title(name), message, names)
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
