"""How a client's fields are read: strictly out of JSON, as what the field is out of text.

A JSON body is taken as it is (4 is a number, "4" is not); form fields and query strings are text. Whatever is
wrong is one `BadRequest` that names the field and says what is allowed.
"""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo

SAMPLES_MAX = 64  # images in one answer

Request = TypeVar("Request", bound=BaseModel)


class BadRequest(ValueError):  # noqa: N818 (the name that HTTP gives it)
    """A client's mistake: which field, what is wrong with it, what would be right."""

    def __init__(self, field: str, message: str, allowed: str = "") -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message, self.allowed = field, message, allowed

    def body(self) -> bytes:
        """Return the answer, JSON."""
        error = {"field": self.field, "message": self.message, "allowed": self.allowed}
        return json.dumps({"error": error}).encode()


def _listed(value: Any, info: ValidationInfo) -> Any:
    """Read "1,2,3" in a form as a list; refuse a long list before anybody looks at what is in it."""
    if info.context and isinstance(value, str) and "," in value:
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, list) and len(value) > SAMPLES_MAX:
        raise ValueError("the list is too long")
    return value


def _digits(value: Any, info: ValidationInfo) -> Any:
    """Take plain digits for a number in a form; Python would read "1_0" and " 4.0" as well."""
    if info.context and not (isinstance(value, str) and value.isascii() and value.isdecimal()):
        raise ValueError("not a whole number")
    return value


def _switch(value: Any, info: ValidationInfo) -> Any:
    """Read true and false in a form."""
    return {"true": True, "false": False}.get(value, value) if info.context else value


def field(default: Any, allowed: str, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **limits)


Label = Annotated[int | str | list[int | str] | None, BeforeValidator(_listed)]
Pictures = Annotated[str | list[str] | None, BeforeValidator(_listed)]
Count = Annotated[int, BeforeValidator(_digits)]
Watching = Annotated[Literal[False, True, "jsonl"], BeforeValidator(_switch)]


def parse(kind: type[Request], fields: dict[str, Any], text: bool) -> Request:
    """Return a request from its fields.

    Args:
        text: the values are strings, as in a form or a query string.

    Raises:
        BadRequest: the first thing that is wrong.
    """
    try:
        if text:
            return kind.model_validate_strings(fields, context={"text": True})
        return kind.model_validate(fields, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(problem["loc"][0]) if problem["loc"] else "body"
        if name not in kind.model_fields:
            shown = name[:40].encode("ascii", "replace").decode()
            raise BadRequest(shown, "there is no such field", ", ".join(kind.model_fields)) from None
        extra = kind.model_fields[name].json_schema_extra
        assert isinstance(extra, dict)
        # of a union, one message for all its members
        wrong_type = name in ("label", "images") and problem["type"] != "value_error"
        message = "wrong type" if wrong_type else problem["msg"].removeprefix("Value error, ")
        raise BadRequest(name, message, str(extra["allowed"])) from None
