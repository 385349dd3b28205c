"""Archives on their way into a server's model store, and out of it."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genserve.files import atomic
from genserve.operate.api import ManagementError, Server
from genserve.operate.archive import NAME
from genserve.operate.chosen import choose, forget
from genserve.operate.store import inspect
from genserve.operate.versions import Say, Version, models

SET_ASIDE = ".old"  # behind the name of an archive that the next start is not to load
BLOCK = 2**20


@dataclass(frozen=True)
class Offered:
    """An archive that can be registered.

    Args:
        file: its name in the server's model store.
        name, version: of its model; "" if the file is not in reach, so that only the server can read it.
        source: what is to be copied into the store under that name, if it is not there.
    """

    file: str
    name: str = ""
    version: str = ""
    source: Path | None = None


def offered(server: Server, file: Path) -> Offered:
    """Return what an archive says of itself, after every byte of it was read; nothing is copied yet.

    Args:
        file: in the server's model store, or anywhere else if the store is in reach.

    Raises:
        ManagementError: no such file, no archive, a torn one, or a name that no URL can have.
    """
    store = server.store
    path = next((place for place in (file, store / file if store else file) if place.exists()), None)
    if path is None and store is None and len(file.parts) == 1:
        return Offered(file.name)  # the server's store may have it
    if path is None:
        raise ManagementError(f"there is no file {file}" + (f"; {contents(store)}" if store else ""), 404)
    if path.is_dir():
        raise ManagementError(f"{path} is a folder: only the start of a server loads one", 400)
    try:
        model = inspect(path)
    except (OSError, ValueError) as error:
        raise ManagementError(f"{path}: {getattr(error, 'strerror', None) or error}", 400) from error
    for what, word in (("model", model.name), ("version", model.version)):
        if not re.fullmatch(NAME, word):
            allowed = "letters, digits, '.', '_' and '-'"
            raise ManagementError(
                f"{path}: its {what} is called {word!r}, and a URL takes {allowed} only", 400
            )
    if store is None or (path.resolve().parent == store.resolve() and SET_ASIDE not in path.suffixes):
        return Offered(path.name, model.name, model.version)
    return Offered(f"{model.name}-{model.version}.mar", model.name, model.version, path)


def contents(store: Path) -> str:
    """Return in words which archives a store has."""
    names = sorted(path.name for path in store.iterdir() if path.name.endswith((".mar", ".tar.gz")))
    return f"{store} has {', '.join(names) or 'no archive'}"


@contextlib.contextmanager
def in_store(server: Server, archive: Offered, say: Say) -> Iterator[None]:
    """Copy an archive into the store, if it is not there; if the block fails, the copy is removed.

    Raises:
        ManagementError: the store cannot be written, or has another archive of that name.
    """
    if archive.source is None or server.store is None:
        yield
        return
    target = server.store / archive.file
    try:
        if target.exists() and not same(target, archive.source):
            raise ManagementError(
                f"{target} exists and is another archive than {archive.source}: move one of them", 409
            )
        fresh = not target.exists()
        if fresh:
            say(f"copying {archive.source} to {target}")
            with archive.source.open("rb") as source, atomic(target) as copy:
                while block := source.read(BLOCK):
                    copy.write(block)
    except OSError as error:
        raise ManagementError(f"{error.filename or target}: {error.strerror}", 502) from error
    try:
        yield
    except BaseException:
        if fresh:
            target.unlink(missing_ok=True)
        raise


def same(a: Path, b: Path) -> bool:
    """Return whether two files have the same bytes."""
    if a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb") as one, b.open("rb") as other:
        while block := one.read(BLOCK):
            if block != other.read(BLOCK):
                return False
    return True


def set_aside(server: Server, version: Version, say: Say) -> None:
    """Rename the archive of a version that was deleted, so that the next start of a server does not load it.

    It stays if the store is not in reach, if the file has another version by now, or if it was registered
    under another name as well.
    """
    if server.store is None or not version.archive:
        return
    with contextlib.suppress(OSError):  # what was chosen and is not there is passed over
        forget(server.store, version.name, version.version)
    path = server.store / version.archive
    target = path.with_name(f"{version.name}-{version.version}.mar{SET_ASIDE}")
    try:
        model = inspect(path)
        if path.is_dir() or (model.name, model.version) != (version.name, version.version):
            return
        path.replace(target)
        say(f"{path} is now {target.name}: the next start of the server does not load it")
    except ValueError:
        return
    except OSError as error:
        say(f"{path} stays, and the next start of the server loads it: {error.strerror}")


def remember(server: Server, name: str, version: str, say: Say) -> None:
    """Have the next start make a version the default, if the store is in reach."""
    if server.store is None:
        return
    try:
        choose(server.store, name, version)
    except OSError as error:
        say(f"the next start of the server does not know that: {error.filename}: {error.strerror}")


def registered(server: Server) -> set[tuple[str, str]]:
    """Return name and version of everything that a server has."""
    entries = [entry for name in models(server) for entry in server.call("GET", name, "all")]
    return {(entry["modelName"], entry["modelVersion"]) for entry in entries}
