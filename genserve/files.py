"""Write files completely or not at all, and name the file in every error.

Every write goes to a temporary file beside it, which is then renamed: a reader sees the old file or the new.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of a file to errors of the system, which may lack it: that of a full disk does."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Turn errors that wrong contents of a file lead to into one ValueError with its name.

    Args:
        what: what the file should be, with its article.

    Raises:
        ValueError: in place of ValueError, TypeError, LookupError and AttributeError.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not {what}: {detail}") from error


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` once everything is written; if that fails, the old file stays.

    Raises:
        OSError: the disk is full, the folder read-only, and so on, with the name of the file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with naming(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file completely or not at all; raises as `atomic`."""
    with atomic(path) as file:
        file.write(data)


def update(path: Path, data: bytes) -> None:
    """Write a file unless it holds these bytes already; raises as `atomic`."""
    with naming(path):
        if path.is_file() and path.read_bytes() == data:
            return
    write_atomic(path, data)


def as_json(value: Any) -> bytes:
    """Return JSON that a person can read; NaN is refused."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read; NaN is refused; raises as `atomic`."""
    write_atomic(path, as_json(value))


def read_json(path: Path, kind: type = dict) -> Any:
    """Return the value in a JSON file.

    Args:
        kind: of the value, dict or list.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds another kind of value, or is torn.
    """
    with naming(path):
        data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} must hold a JSON {kind.__name__}, it holds {type(value).__name__}")
    return value


def digest(*paths: Path) -> str:
    """Return the SHA-256 of the contents of files, one after the other, in hexadecimal.

    Raises:
        OSError: one is missing or cannot be read.
    """
    total = hashlib.sha256()
    for path in paths:
        with naming(path), path.open("rb") as file:
            while part := file.read(2**20):
                total.update(part)
    return total.hexdigest()
