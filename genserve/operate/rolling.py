"""Roll a new version of a model over the old one, without losing a request, and back."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genserve.families import FAMILIES
from genserve.operate.api import ManagementError, Server
from genserve.operate.deletion import remove
from genserve.operate.offered import in_store, offered, remember
from genserve.operate.registration import add, held
from genserve.operate.versions import Say, Version, described, listed, quiet, version_of, versions
from genserve.operate.waiting import READY_S, TOO_LONG, WAIT_S, wait_empty

ROUNDING = 1  # of 255: by how much a pixel may differ if its evaluation was shared with other requests
SMOKE: Mapping[str, object] = {}  # stands for the smoke request of the model's family


@dataclass(frozen=True)
class Rolled:
    """What a roll left: the version that is the default, and the one that was."""

    name: str
    version: str
    before: str
    kept: bool  # whether the one before is still registered


def roll(
    server: Server,
    name: str,
    file: Path,
    *,
    keep: bool = False,
    smoke: Mapping[str, object] | None = SMOKE,
    check_seed: int | None = None,
    wait_s: float = WAIT_S,
    ready_s: float = READY_S,
    say: Say = quiet,
) -> Rolled:
    """Make a new version the default of a model and delete the old one when nothing of it is open.

    The new one gets as many workers as the old one has, and has to answer a request before it becomes the
    default. If something fails or the program is interrupted before the end, the old version is the default
    and the new one is not registered.

    Args:
        file: an archive of this model, as in `register`.
        keep: the old version stays registered, with its workers, for a quick `rollback`.
        smoke: fields of a request that the new version has to answer 200; SMOKE is its family's, None is no
            request.
        check_seed: with this seed, the request has to give the same bytes from both versions, or the same
            picture but for rounding.
        wait_s: seconds that requests of the old version may take to end.
        ready_s: seconds that the new workers may take to load.

    Raises:
        ManagementError: something of this fails. If the old version alone does not become empty in time,
            both stay, and the new one is the default.
    """
    archive = offered(server, file)
    if archive.name not in ("", name):
        raise ManagementError(
            f"{file} is an archive of {archive.name}, not of {name}: build it with --name {name}", 400
        )
    if check_seed is not None and smoke is None:
        raise ManagementError("a seed is compared by the smoke request: there is none", 400)
    with held(server, name):
        old = version_of(server, name)
        if check_seed is not None and not old.ready:
            raise ManagementError(
                f"{name} {old.version} has no worker that is ready, to compare a picture with", 409
            )
        still_open: ManagementError | None = None
        with in_store(server, archive, say):  # what was copied goes if the block fails
            new = add(server, archive, max(1, old.target), ready_s=ready_s, say=say)
            switched = False
            try:
                if new.name != name:
                    raise ManagementError(f"{file} is an archive of {new.name}, not of {name}", 400)
                tried = try_out(server, new, smoke, say)
                if check_seed is not None:
                    compare(server, old, new, {**(tried or {}), "seed": check_seed}, say)
                switched = True
                set_default(server, new, say)
                if not keep:
                    still_open = _emptied(server, old, wait_s, say)
            except BaseException:
                _undo(server, old, new, switched, say)
                raise
        if still_open:
            stays = f"{new.version} is the default, and {old.version} stays registered"
            raise ManagementError(f"{stays}: {still_open}", still_open.status)
        if not keep:
            remove(server, old, say)
        return Rolled(name, new.version, old.version, kept=keep)


def _emptied(server: Server, version: Version, seconds: float, say: Say) -> ManagementError | None:
    """Wait until nothing of a version is open; return why that did not happen in time."""
    try:
        wait_empty(server, version, seconds, say)
    except ManagementError as problem:
        if problem.status != TOO_LONG:
            raise
        return problem
    return None


def rollback(
    server: Server,
    name: str,
    version: str | None = None,
    *,
    smoke: Mapping[str, object] | None = SMOKE,
    say: Say = quiet,
) -> Rolled:
    """Make another registered version the default again, if it can answer; both stay registered.

    Args:
        version: needed if there are several others.
        smoke: as in `roll`.

    Raises:
        ManagementError: there is no other version, or it has no worker that is ready, or does not answer.
    """
    with held(server, name):
        existing = versions(server, name)
        old = version_of(server, name)
        others = [one for one in existing if not one.default]
        if not others:
            raise ManagementError(
                f"{name} has no version but {old.version}: there is nothing to go back to", 409
            )
        if version is None and len(others) > 1:
            raise ManagementError(
                f"{name} has the versions {listed(existing)}: say which one by --version", 409
            )
        new = version_of(server, name, version) if version else others[0]
        if new.default:
            raise ManagementError(f"{new.version} is the default of {name} already", 409)
        if not new.ready:
            raise ManagementError(
                f"{name} {new.version} has no worker that is ready: scale it first "
                f"(genserve models scale {name} 1 --version {new.version})", 409,
            )  # fmt: skip
        try_out(server, new, smoke, say)
        set_default(server, new, say)
        return Rolled(name, new.version, old.version, kept=True)


def try_out(
    server: Server, version: Version, smoke: Mapping[str, object] | None, say: Say
) -> Mapping[str, object] | None:
    """Send a version a request and return its fields, None for no request.

    Raises:
        ManagementError: it is not answered 200.
    """
    if smoke is SMOKE:
        description = described(server, version)
        if description is None or description["family"] not in FAMILIES:
            say(f"{version.name} {version.version} is sent no request: it is no archive of genserve's")
            return None
        smoke = FAMILIES[description["family"]].smoke
    if smoke is not None:
        say(f"trying {json.dumps(dict(smoke))} on {version.name} {version.version}")
        _answer(server, version, smoke)
    return smoke


def compare(server: Server, old: Version, new: Version, fields: Mapping[str, object], say: Say) -> None:
    """Raise a ManagementError if two versions answer a request with different bytes.

    Pictures may differ by ROUNDING.
    """
    digests = [hashlib.sha256(_answer(server, one, fields)).hexdigest()[:12] for one in (old, new)]
    if digests[0] != digests[1] and not _pixels_agree(server, old, new, fields):
        raise ManagementError(
            f"seed {fields['seed']} gives another picture: {old.version} answers {digests[0]} (SHA-256), "
            f"{new.version} answers {digests[1]}", 409,
        )  # fmt: skip
    say(f"seed {fields['seed']} gives the same picture from {old.version} and {new.version}: {digests[0]}")


def _pixels_agree(server: Server, old: Version, new: Version, fields: Mapping[str, object]) -> bool:
    """Return whether two versions answer with pixels that are the same but for rounding."""
    try:
        one, other = (_answer(server, version, {**fields, "format": "npy"}) for version in (old, new))
    except ManagementError:  # no pictures
        return False
    return len(one) == len(other) and max(abs(a - b) for a, b in zip(one, other, strict=True)) <= ROUNDING


def _answer(server: Server, version: Version, fields: Mapping[str, object]) -> bytes:
    status, _, body = server.predict(version.name, version.version, fields)
    if status != 200:
        text = " ".join(body[:300].decode(errors="replace").split())
        raise ManagementError(
            f"{version.name} {version.version} answers {json.dumps(dict(fields))} with {status}: {text}"
        )
    return body


def set_default(server: Server, version: Version, say: Say) -> None:
    """Send what names no version to this one, from the next request on, and after the next start too."""
    server.call("PUT", version.name, version.version, "set-default")
    say(f"{version.version} is the default of {version.name}")
    remember(server, version.name, version.version, say)


def _undo(server: Server, old: Version, new: Version, switched: bool, say: Say) -> None:
    """Make the old version the default and delete the new one, which may have requests open by now."""
    try:
        if switched:
            set_default(server, old, say)
            with contextlib.suppress(KeyboardInterrupt):  # a second one: do not wait
                _emptied(server, new, WAIT_S, say)
        server.call("DELETE", new.name, new.version)
        say(f"undone: {new.name} {new.version} is not registered, {old.version} is the default")
    except ManagementError as problem:  # the first problem is the one to raise
        say(f"not undone, `genserve models show {old.name}` has how things stand: {problem}")
