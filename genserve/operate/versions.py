"""What a server has: models, their versions, and the workers of each.

The host knows which workers there are and how many requests wait in its queue. What is open in a worker only
the table of the version's workers knows (`genserve.crew`), which is in reach on the server's own machine, for
its user.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from genserve.crew import Asked, State
from genserve.operate import crews
from genserve.operate.api import ManagementError, Server

Say = Callable[[str], None]  # takes one line about what is going on


def quiet(line: str) -> None:
    """Take a line about what is going on, and say nothing."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker, as the host has it and, if that is in reach, as the table has it."""

    id: int
    status: str  # of the host: READY, or UNLOADING while it loads or ends
    pid: int  # -1 before it has a process
    gpu: bool
    state: str | None = None  # of the table, a name in State
    open: int | None = None  # requests
    duty: str | None = None  # what it was asked to do, a name in Asked

    @property
    def ready(self) -> bool:
        return self.status == "READY"

    @property
    def leaving(self) -> bool:
        """Whether it was asked to retire or to drain."""
        return self.duty not in (None, Asked.NOTHING.name)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a model on a server."""

    name: str
    version: str
    default: bool
    archive: str  # the file's name in the model store
    continuous: bool
    target: int  # the number of workers that it is to have
    queued: int  # requests that wait for a worker
    workers: tuple[Worker, ...]  # in the host's order: it stops the last ones first

    @property
    def ready(self) -> int:
        """The number of workers that have loaded the model."""
        return sum(worker.ready for worker in self.workers)

    @property
    def in_reach(self) -> bool:
        """Whether it is known what every worker that has loaded the model has open."""
        return all(worker.open is not None for worker in self.workers if worker.ready)

    @property
    def open(self) -> int | None:
        """The number of requests that the workers have open; None if that is not known."""
        return sum(worker.open or 0 for worker in self.workers) if self.in_reach else None

    @property
    def empty(self) -> bool | None:
        """Whether no request waits or is open; None if that is not known."""
        if self.queued or self.open:
            return False
        return None if self.open is None else all(w.state != State.BUSY.name for w in self.workers)


def models(server: Server) -> list[str]:
    """Return the names of the models of a server; raises as `Server.call`."""
    names: list[str] = []
    token = "0"
    while token is not None:
        page = server.call("GET", limit=1000, next_page_token=token)
        names += [entry["modelName"] for entry in page["models"]]
        token = page.get("nextPageToken")
    return names


def versions(server: Server, name: str) -> list[Version]:
    """Return the versions of a model, the oldest registration first.

    Raises:
        ManagementError: there is no such model, or the server does not answer.
    """
    entries = server.call("GET", name, "all")
    default = server.call("GET", name)[0]["modelVersion"]
    return [_read(server, entry, default) for entry in entries]


def version_of(server: Server, name: str, version: str | None = None) -> Version:
    """Return one version of a model, the default one if none is named.

    Raises:
        ManagementError: there is no such model or version, or the server does not answer.
    """
    existing = versions(server, name)
    for one in existing:
        if one.version == version or (version is None and one.default):
            return one
    raise ManagementError(f"{name} has no version {version}; it has {listed(existing)}", 404)


def listed(existing: Iterable[Version]) -> str:
    """Return versions in words, which of them is the default included."""
    return ", ".join(f"{one.version} (default)" if one.default else one.version for one in existing)


def _read(server: Server, entry: Any, default: str) -> Version:
    hosts = [
        Worker(id=int(w["id"]), status=w["status"], pid=w["pid"], gpu=w["gpu"]) for w in entry["workers"]
    ]
    return Version(
        name=entry["modelName"],
        version=entry["modelVersion"],
        default=entry["modelVersion"] == default,
        archive=entry["modelUrl"],
        continuous=bool(entry.get("continuousBatching")),
        target=entry["minWorkers"],
        queued=entry["jobQueueStatus"]["pendingRequests"],
        workers=tuple(_with_table(server, hosts)),
    )


def _with_table(server: Server, workers: list[Worker]) -> list[Worker]:
    """Return workers with what their table has of them.

    The number of a process means nothing outside its container, so the host's number has to fit, too.
    """
    members = crews.members([worker.pid for worker in workers if worker.pid > 0], server.temporary)
    joined = []
    for worker in workers:
        member = members.get(worker.pid)
        if member and member.worker == worker.id:
            state, duty = member.state.name, member.duty.name
            worker = replace(worker, state=state, open=member.open, duty=duty)
        joined.append(worker)
    return joined


def ask(server: Server, workers: Iterable[Worker], duty: Asked) -> None:
    """Ask workers of one version for something; one whose table is not in reach is not asked."""
    crews.ask({worker.pid: worker.id for worker in workers if worker.pid > 0}, server.temporary, duty)


def plural(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def described(server: Server, version: Version) -> dict[str, Any] | None:
    """Return what a version says of itself; None if it is no archive of genserve's, or does not answer."""
    status, _, body = server.predict(version.name, version.version, {"task": "describe"})
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if status == 200 and isinstance(answer, dict) and "family" in answer else None
