"""Answer requests to the management API as the host documents it, but lose nothing by them.

What may be handed on to the host is. The HTTP around it is in `operate.front`.
"""

import contextlib
import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode

from genserve.crew import SLOTS
from genserve.operate.api import CALL_S, ManagementError, Server, exchange
from genserve.operate.archive import NAME
from genserve.operate.offered import registered, remember
from genserve.operate.reasons import Log
from genserve.operate.registration import held, put
from genserve.operate.scaling import resize
from genserve.operate.store import inspect
from genserve.operate.versions import version_of, versions
from genserve.operate.waiting import READY_S, wait_ready

log = logging.getLogger(__name__)

_registering = threading.Lock()  # what is new on the server is then what was registered


class Answer(NamedTuple):
    """What a client gets."""

    status: int
    content_type: str
    body: bytes


class Call(NamedTuple):
    """A request to the API."""

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]  # parameters that came as JSON

    @property
    def words(self) -> list[str]:
        """The parts of the path, unquoted: models, the name and the version."""
        return [unquote(word) for word in self.path.split("/")[1:]]


def answer(server: Server, call: Call) -> Answer:
    """Return the answer to a request, after what it asks for has been done or has begun.

    Raises:
        ManagementError: the host does not answer, or what it was asked fails.
    """
    customized = _true(call.query.pop("customized", ""))
    match call.method, call.words:
        case "PUT", ["models", name, version, "set-default"]:
            return set_default(server, call, name, version)
        case (_, ["workflows", *_]) | (_, ["models", _, _, _, *_]):
            return refusal(404, f"there is no {call.path}")
        case "GET", ["models", name, *version] if customized:
            return describe(server, call, name, *version)
        case "POST", ["models"]:
            return register(server, call)
        case "PUT", ["models", name, *version]:
            return rescale(server, call, name, *version)
        case "DELETE", ["models", name, *version]:
            return unregister(server, call, name, *version)
    return hand_on(server, call)


def hand_on(server: Server, call: Call) -> Answer:
    """Return what the host answers."""
    path = f"{call.path}?{urlencode(call.query)}" if call.query else call.path
    body = json.dumps(call.body).encode() if call.body else None
    return Answer(*exchange(server.management, call.method, path, body, CALL_S))


def set_default(server: Server, call: Call, name: str, version: str) -> Answer:
    """Have the host make a version the default, and the next start too."""
    done = hand_on(server, call)
    if done.status == HTTPStatus.OK:
        remember(server, name, version, log.warning)
    return done


def describe(server: Server, call: Call, name: str, version: str = "") -> Answer:
    """Return a version's description and, as the host documents it, what its worker says of itself."""
    plain = hand_on(server, call)
    if plain.status != HTTPStatus.OK or version == "all":
        return plain
    description = json.loads(plain.body)
    status, _, metadata = server.predict(name, description[0]["modelVersion"], {"task": "describe"})
    if status == HTTPStatus.OK:
        with contextlib.suppress(ValueError):
            description[0]["customizedMetadata"] = json.loads(metadata)
    return as_json(HTTPStatus.OK, description)


def register(server: Server, call: Call) -> Answer:
    """Register an archive of the store; wait for its workers if that is asked for, as it is by default."""
    parameters = call.body or call.query
    url = parameters.get("url", "")
    if not isinstance(url, str) or url.startswith(("jar:", "/")) or Path(url).is_absolute():
        return refusal(400, f"url must be the name of an archive in the model store, got {url!r}")
    name = parameters.get("model_name") or _named(server, url)
    if not re.fullmatch(NAME, str(name)):  # the host takes it, and no one could look at its models any more
        return refusal(400, f"model_name takes letters, digits, '.', '_' and '-' only, got {name!r}")
    initial = None
    if parameters.get("initial_workers") is not None:
        initial = number(parameters, "initial_workers", 0)
    waits = _true(str(parameters.get("synchronous", "true")))
    parameters["synchronous"] = "false"
    with _registering:
        before = registered(server)
        begun = hand_on(server, call)
        new = registered(server) - before
    if begun.status >= HTTPStatus.BAD_REQUEST or len(new) != 1:
        return begun
    name, version = new.pop()
    workers = version_of(server, name, version).target
    if initial not in (None, workers):  # the archive's minWorkers was stronger
        put(server, name, version, workers := initial)
    if not waits:
        return begun
    try:
        wait_ready(server, name, version, workers, seconds=READY_S, log=Log(server))
    except ManagementError as problem:
        server.call("DELETE", name, version)
        return refusal(500, str(problem))
    return say(f'Model "{name}" Version: {version} registered with {workers} initial workers')


def _named(server: Server, url: str) -> str:
    """Return the name that an archive of the store has by itself, "unknown" if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        if server.store and url:
            return inspect(server.store / url).name
    return "unknown"


def rescale(server: Server, call: Call, name: str, version: str | None = None) -> Answer:
    """Give a version another number of workers; the answer waits for them only if that is asked for."""
    waits = _true(call.query.pop("synchronous", "false"))
    least = number(call.query, "min_worker", 1)
    most = number(call.query, "max_worker", least)
    if most < least:
        return refusal(400, f"max_worker must be at least min_worker, {least}, got {most}")
    with contextlib.ExitStack() as lock:
        lock.enter_context(held(server, name))
        now = version_of(server, name, version)
        workers = min(max(len(now.workers), least), most) if least else 0  # as the host decides it

        def shrunk() -> Answer:
            resize(server, now, workers)
            return hand_on(server, call)

        if workers >= len(now.workers):
            begun = hand_on(server, call)
            if begun.status < HTTPStatus.BAD_REQUEST and waits:
                wait_ready(server, name, now.version, workers, seconds=READY_S, log=Log(server))
        elif waits:
            begun = shrunk()
        else:
            in_background(shrunk, lock.pop_all())
            return as_json(HTTPStatus.ACCEPTED, {"status": "Processing worker updates..."})
    if begun.status >= HTTPStatus.BAD_REQUEST or not waits:
        return begun
    which = "" if version is None else f", version: {version}"
    return say(f"Workers scaled to {workers} for model: {name}{which}")


def unregister(server: Server, call: Call, name: str, version: str | None = None) -> Answer:
    """Unregister a version once nothing of it is open."""
    with held(server, name):
        with contextlib.suppress(ManagementError):  # the host says what is wrong, or ends what takes too long
            one = version_of(server, name, version)
            if len(versions(server, name)) == 1 or not one.default:
                resize(server, one, 0)
        return hand_on(server, call)


def number(parameters: Mapping[str, Any], name: str, default: int) -> int:
    """Return a number of workers among the parameters of a request; the host would start any number.

    Raises:
        ManagementError: it is none, or too large.
    """
    text = str(parameters.get(name, default))
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > SLOTS:
        raise ManagementError(f"{name} must be in 0 to {SLOTS}, got {text!r}", 400)
    return int(text)


def in_background(run: Callable[[], object], lock: AbstractContextManager[object]) -> None:
    """Run what a client does not wait for, and leave the lock; a failure is a line in the log."""

    def logged() -> None:
        try:
            with lock:
                run()
        except ManagementError as problem:
            log.warning("%s", problem)

    threading.Thread(target=logged, daemon=True).start()


def say(status: str) -> Answer:
    """Return a success in the host's form."""
    return as_json(HTTPStatus.OK, {"status": status})


def refusal(status: int, message: str) -> Answer:
    """Return an error in the host's form."""
    kind = HTTPStatus(status).phrase.title().replace(" ", "") + "Exception"
    return as_json(status, {"code": status, "type": kind, "message": message})


def as_json(status: int, value: object) -> Answer:
    return Answer(status, "application/json", json.dumps(value, indent=2).encode() + b"\n")


def _true(text: str) -> bool:
    return text.lower() == "true"
