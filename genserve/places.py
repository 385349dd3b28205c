"""Find what the project ships: weights, data, handlers, training programs.

A relative path is read below the working directory; if nothing exists at that place, below the project that
this code belongs to. Programs write (runs, out, downloads) below the working directory only.
"""

from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).resolve().parents[1]  # the folder that genserve is imported from
_SHIPPED = Path(__file__).resolve().parent / "shipped"  # what a wheel puts there (pyproject.toml)
IN_CHECKOUT = not _SHIPPED.is_dir()
PROJECT = PACKAGES if IN_CHECKOUT else _SHIPPED


def places(path: Path | str) -> list[Path]:
    """Return the places that a path may be read from, the first choice first."""
    local = Path(path)
    shipped = PROJECT / local
    return [local] if local.resolve() == shipped.resolve() else [local, shipped]


def located(path: Path | str) -> Path:
    """Return the first place of a path that exists.

    If none exists, the path is returned as it is, so that an error names what the user wrote.
    """
    return next((place for place in places(path) if place.exists()), Path(path))


def locate(settings: Any, *names: str) -> None:
    """Replace paths in a frozen dataclass by the places to read them from; None stays None."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            object.__setattr__(settings, name, located(value))


def kept(name: str) -> Path:
    """Return a folder of the local server, of archives or logs, below the checkout or the working directory.

    An installed genserve has no checkout, and its own folder is not for writing.
    """
    return PROJECT / name if IN_CHECKOUT else Path.cwd() / name
