"""Have a server serve what a job has trained: under a new name, or in place of the version before."""

import re
from pathlib import Path

from genserve.operate.api import ManagementError, Server
from genserve.operate.deletion import delete
from genserve.operate.registration import register
from genserve.operate.rolling import SMOKE, roll, try_out
from genserve.operate.versions import Say, Version, models, versions


def successor(server: Server, name: str) -> tuple[str, str]:
    """Return a version that no archive of a model has yet, and its default version, "" if there is none.

    Raises:
        ManagementError: the server does not answer.
    """
    existing = _versions(server, name)
    known = [one.version for one in existing]
    if server.store is not None:  # archives that are put aside have versions, too
        pattern = re.compile(rf"{re.escape(name)}-(\d+)\..*\.mar")
        known += [match[1] for path in server.store.iterdir() if (match := pattern.match(path.name))]
    numbers = [int(match[0]) for version in known if (match := re.match(r"\d+", version))]
    default = next((one.version for one in existing if one.default), "")
    return f"{max(numbers, default=0) + 1}.0", default


def serve(server: Server, name: str, version: str, before: str, archive: Path, say: Say) -> None:
    """Register an archive, or roll it over the version that is the default, and lose no request.

    It may be called again after it was cut off, and then ends what it had begun.

    Args:
        version: of the archive.
        before: the version that it takes the place of; "" for none.

    Raises:
        ManagementError: that fails; then the server has what it had.
    """
    ours = _find(_versions(server, name), version)
    if ours is not None and not (ours.default and ours.ready):  # it was cut off before it could answer
        delete(server, name, version, now=True, say=say)
        ours = None
    others = [one for one in _versions(server, name) if one.version != version]
    if ours is not None:
        if _find(others, before):  # it was cut off before the old one was deleted
            delete(server, name, before, say=say)
    elif others:
        roll(server, name, archive, say=say)
    else:
        new = register(server, archive, say=say)
        try:
            try_out(server, new, SMOKE, say)
        except ManagementError:
            delete(server, name, version, now=True, say=say)
            raise


def _versions(server: Server, name: str) -> list[Version]:
    return versions(server, name) if name in models(server) else []


def _find(existing: list[Version], version: str) -> Version | None:
    return next((one for one in existing if one.version == version), None)
