"""Where programs look for what the project ships: weights, data, handlers, training programs.

One rule: a relative path is read below the working directory; if nothing is there, below the project that
this code belongs to. What is written (runs, out, downloads) goes below the working directory alone.
"""

from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).resolve().parents[1]  # the folder that genserve is imported from
_SHIPPED = Path(__file__).resolve().parent / "shipped"  # what a wheel puts there (pyproject.toml)
IN_CHECKOUT = not _SHIPPED.is_dir()
PROJECT = PACKAGES if IN_CHECKOUT else _SHIPPED


def places(path: Path | str) -> list[Path]:
    """Return where a path may be read from, the first choice first."""
    given = Path(path)
    shipped = PROJECT / given
    return [given] if given.resolve() == shipped.resolve() else [given, shipped]


def located(path: Path | str) -> Path:
    """Return the first place of a path where something is.

    A path that leads nowhere comes back as it was given, so that an error names what the user wrote.
    """
    return next((place for place in places(path) if place.exists()), Path(path))


def locate(settings: Any, *names: str) -> None:
    """Replace paths of a frozen dataclass by where they are read from; None stays None."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            object.__setattr__(settings, name, located(value))


def kept(name: str) -> Path:
    """Return a folder of the local server, of archives or logs, below the checkout or the working directory.

    An installed genserve has no checkout, and its own folder is not for writing.
    """
    return PROJECT / name if IN_CHECKOUT else Path.cwd() / name
