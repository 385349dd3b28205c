"""Which version of a model was made the default: the model store keeps it, so that the next start knows.

Each model has a small file beside its archives. Models may so be changed at once, by several programs.
"""

from pathlib import Path

from genserve.files import write_atomic

ENDING = ".default"


def chosen(store: Path, name: str) -> str:
    """Return the version that was made the default of a model last, "" if none was."""
    try:
        return _file(store, name).read_text().strip()
    except (OSError, ValueError):
        return ""


def choose(store: Path, name: str, version: str) -> None:
    """Have the next start make a version the default.

    Raises:
        OSError: the store cannot be written.
    """
    write_atomic(_file(store, name), f"{version}\n".encode())


def forget(store: Path, name: str, version: str) -> None:
    """Forget a version that was chosen, because it is deleted.

    Raises:
        OSError: the store cannot be written.
    """
    if chosen(store, name) == version:
        _file(store, name).unlink(missing_ok=True)


def _file(store: Path, name: str) -> Path:
    return store / f".{name}{ENDING}"
