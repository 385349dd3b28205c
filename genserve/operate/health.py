"""Exit with 0 when a server on this machine can answer for every model; `/ping` is 200 long before.

genserve health           readiness: no model's worker is missing, loading, draining or stuck
genserve health --live    liveness: the host answers, no worker is stuck for good; if not, it needs a restart

A model that was given no worker, as `serve start` does with one that cannot be loaded, does not count; one
with a worker must remain. The last line says what is wrong, and with which model.
"""

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

from genserve.crew import Member, State
from genserve.operate.crews import members
from genserve.operate.management import get
from genserve.operate.process import home, limited, running, state

UNVISITED_S = 30  # the host visits a worker with open requests many times a second
EVALUATING_S = 60  # one takes less than a second
FOR_GOOD = 4  # times as long, and nothing but a restart helps
PROBE_S = 2.0  # for the answer of a worker
STOPPED = ("T", "t")  # by a signal or a debugger


def run(argv: list[str]) -> None:
    """Look at a server; what is wrong ends the program in one line.

    Raises:
        SystemExit: the server is not ready, or not alive, or did not answer in time.
    """
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--live", action="store_true", help="liveness instead of readiness")
    parser.add_argument(
        "--port", type=int, help="of predictions (default: that of the server of --home, else 8080)"
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=home(),
        help="logs and temporary files of this server (default: $GENSERVE_HOME, or .serve)",
    )
    parser.add_argument("--timeout", type=float, default=8.0, help="seconds for all of it (default: 8)")
    options = parser.parse_args(argv)
    if not 0 < options.timeout <= 3600:
        sys.exit(f"--timeout must be above 0 and at most 3600 seconds, got {options.timeout:g}")
    word = "alive" if options.live else "ready"
    server = running(options.home) or {}
    port = options.port or server.get("port", 8080)
    if server.get("port") != port:  # another one, of which nothing is known
        server = {"port": port, "management": port + 1}
    try:
        with limited(options.timeout):
            fault = dead(server) if options.live else unready(server)
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        sys.exit(f"not {word}: the server on port {port} does not answer ({error or type(error).__name__})")
    if fault:
        sys.exit(f"not {word}: {fault}")


def unready(server: dict[str, Any]) -> str | None:
    """Return why a server should get no requests, None if it should.

    Raises:
        OSError, HTTPException, ValueError, LookupError, TypeError: it does not answer as the host does.
    """
    if server.get("stopping"):
        return "the server is stopping"
    models = defaults(server)
    if not any(model["minWorkers"] for model in models):
        return "no model has a worker" if models else "no model is registered"
    for model in models:
        name, n = model["modelName"], model["minWorkers"]
        n_ready = sum(worker["status"] == "READY" for worker in model["workers"])
        if n_ready < n:
            return f"{name}: {n_ready} of {n} workers are ready"
        if fault := (n and stuck(server, model, 1)) or (n and unanswered(server, model)):
            return f"{name}: {fault}"
    return None


def dead(server: dict[str, Any]) -> str | None:
    """Return why a server needs a restart, None if it needs none; raises as `unready`."""
    for model in defaults(server):
        if fault := stuck(server, model, FOR_GOOD):
            return f"{model['modelName']}: {fault}"
    return None


def defaults(server: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the host says of the default version of every model."""
    address = server["management"]
    names = [entry["modelName"] for entry in get(address, "/models?limit=1000")["models"]]
    return [get(address, f"/models/{quote(name, safe='')}")[0] for name in names]


def stuck(server: dict[str, Any], model: dict[str, Any], patience: int) -> str | None:
    """Return why a worker will not answer, None if all will.

    Args:
        patience: how many times the usual limits a worker may be away.
    """
    for worker in model["workers"]:
        if state(worker["pid"]) in STOPPED:
            return f"worker {worker['id']} is stopped (process {worker['pid']})"
    for member in table(server, model).values():
        idle, evaluating = (
            monotonic() - member.visited,
            monotonic() - (member.evaluating_since or monotonic()),
        )
        if evaluating > EVALUATING_S * patience:
            return f"worker {member.worker} has been in one evaluation for {evaluating:.0f} s"
        # a batch of a batched archive is one visit, however long
        if model.get("continuousBatching") and member.state is State.BUSY and idle > UNVISITED_S * patience:
            return (
                f"worker {member.worker} has {member.open} open requests and was not visited for {idle:.0f} s"
            )
    return None


def unanswered(server: dict[str, Any], model: dict[str, Any]) -> str | None:
    """Ask a worker for its description; return why that is no answer, None if it is one.

    A model without a table is none of ours, and is not asked. While there is much to do, none is no fault.
    """
    workers = table(server, model).values()
    if not workers:
        return None
    link = HTTPConnection("127.0.0.1", server["port"], timeout=PROBE_S)
    try:
        link.request(
            "POST", f"/predictions/{quote(model['modelName'], safe='')}", json.dumps({"task": "describe"}),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        answer = link.getresponse()
        text = answer.read().decode(errors="replace")
    except TimeoutError:
        if any(member.state is State.BUSY for member in workers):
            return None  # all that is in front of it comes first; the table says that the work goes on
        return f"no answer within {PROBE_S:g} s, though nothing is open"
    finally:
        link.close()
    if answer.status == 503 and answer.getheader(
        "Retry-After"
    ):  # a worker's; the host, with a full queue, gives none
        return "it is draining"
    return None if answer.status in (200, 503) else f"it answered {answer.status}: {text[:200]}"


def table(server: dict[str, Any], model: dict[str, Any]) -> dict[int, Member]:
    """Return the living workers of the default version that have a place in a table, by their process."""
    pids = [worker["pid"] for worker in model["workers"]]
    temporary = Path(server["temporary"]) if "temporary" in server else None
    return {pid: member for pid, member in members(pids, temporary).items() if pid in pids}
