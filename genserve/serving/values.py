"""The types of a request's fields: what a value may be in JSON, and how it is written in text."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationInfo

from genserve.serving.base64_text import decode, split
from genserve.serving.limits import SAMPLES_MAX

NO_PICTURE = "a picture is text, in base64"
WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")  # RFC 8259
NUMBER = re.compile(WHOLE.pattern + r"(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Python's True, R's TRUE, a checkbox's on
SWITCHES = {"true": True, "1": True, "yes": True, "on": True} | {
    "false": False, "0": False, "no": False, "off": False
}  # fmt: skip


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


def _texts(value: Any, info: ValidationInfo) -> Any:
    if _is_text(info) and "," in value:
        value = [part.strip() for part in value.split(",")]
    return _unicode(_each(value, (str,), "a text is text"))


def _plain(value: Any) -> Any:
    if type(value) is not str:
        raise ValueError("not text")
    return _unicode(value)


def _stops(value: Any) -> Any:
    return _unicode(_each(value, (str,), "a stop is text"))


def _telling(value: Any, info: ValidationInfo) -> Any:
    return value if value in ("sse", "jsonl") else _switch(value, info)


def _on_or_off(value: Any, info: ValidationInfo) -> Any:
    value = _switch(value, info)
    if not isinstance(value, bool):
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


def _unicode(value: Any) -> Any:
    """Refuse half of a surrogate pair, which JSON can escape and no text consists of."""
    for one in value if isinstance(value, list) else [value]:
        if any("\ud800" <= letter <= "\udfff" for letter in one):
            raise ValueError("half of a surrogate pair is no character")
    return value


Texts = Annotated[str | list[str], BeforeValidator(_texts)]
Plain = Annotated[str, BeforeValidator(_plain)]
Stops = Annotated[str | list[str], BeforeValidator(_stops)]
Telling = Annotated[Literal[True, False, "sse", "jsonl"], BeforeValidator(_telling)]
Switch = Annotated[bool, BeforeValidator(_on_or_off)]
Label = Annotated[int | str | list[int | str] | None, BeforeValidator(_classes)]
Pictures = Annotated[bytes | list[bytes] | None, BeforeValidator(_pictures)]
Picture = Annotated[bytes, BeforeValidator(_picture)]
Count = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]
Watching = Annotated[Literal[True, False, "jsonl"], BeforeValidator(_switch)]
