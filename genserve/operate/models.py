"""List, register, scale, roll and delete the models of a running server; no request is lost.

genserve models list                        names, versions, workers, requests that are open or wait
genserve models show diffusion              worker by worker
genserve models register mine.mar           from the model store, or copied there
genserve models scale diffusion 2           up, or down once the workers that go have ended what is open
genserve models roll diffusion new.mar      the new version takes over, the old one goes when it is empty
genserve models rollback diffusion          back to a version that was kept (roll --keep)
genserve models retire diffusion            ends what is open, then no workers: it is answered 503
genserve models delete diffusion            ends what is open, then it is gone

If something fails, or Ctrl-C ends it, what was done is undone.
"""

import json
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from genserve.operate.api import LOOPBACK, ManagementError, local_server
from genserve.operate.deletion import delete
from genserve.operate.process import home
from genserve.operate.registration import register
from genserve.operate.rolling import SMOKE, roll, rollback
from genserve.operate.scaling import scale
from genserve.operate.versions import Version, models, plural, versions
from genserve.operate.waiting import READY_S, WAIT_S

EXAMPLE = '{"steps": 4}'  # of a smoke request
INTERRUPTED = 130  # status of a program that Ctrl-C ended


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    where = ArgumentParser(add_help=False)
    where.add_argument(
        "--port", type=int, default=8080, help="of predictions (default: 8080); management is the next one"
    )
    where.add_argument("--host", default=LOOPBACK, help=f"of the server (default: {LOOPBACK})")
    where.add_argument(
        "--home",
        type=Path,
        default=home(),
        help="logs and temporary files of a server on this machine (default: .serve)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *arguments: str) -> ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[where])
        for argument in arguments:
            sub.add_argument(argument, type=Path if argument == "file" else str)
        return sub

    for looking in (
        command("list", "list all models"),
        command("show", "show one, worker by worker", "name"),
    ):
        looking.add_argument("--json", action="store_true", help="as JSON")
    registering = command("register", "register an archive and wait for its workers", "file")
    registering.add_argument("--workers", type=int, default=1, help="to start (default: 1)")
    scaling = command("scale", "give a version a number of workers", "name")
    scaling.add_argument("workers", type=int, help="0 or more; with 0 it is answered 503")
    retiring = command("retire", "end what is open, then stop all workers: the same as scale NAME 0", "name")
    rolling = command(
        "roll", "make a new version the default, delete the old one when it is empty", "name", "file"
    )
    rolling.add_argument("--keep", action="store_true", help="keep the old version, for a quick rollback")
    rolling.add_argument(
        "--check-seed",
        type=int,
        metavar="SEED",
        help="go on only if the smoke request, with this seed, gives the same picture from both versions",
    )
    back = command("rollback", "make a version that was kept the default again", "name")
    deleting = command("delete", "unregister a version once nothing of it is open", "name")
    for trying in (rolling, back):
        trying.add_argument(
            "--smoke",
            type=_fields,
            default=SMOKE,
            metavar="JSON",
            help=f"request that the new default has to answer first, such as {EXAMPLE} "
            "(default: a small one of its family); '' for none",
        )
    for versioned in (scaling, retiring, back, deleting):
        versioned.add_argument(
            "--version",
            help="of the model (default: the only other one)"
            if versioned is back
            else "of the model (default: its default version)",
        )
    for stopping in (scaling, retiring, deleting):
        stopping.add_argument(
            "--now",
            action="store_true",
            help="do not wait: what is open may be answered 500, what waits may get no answer",
        )
    for waiting in (scaling, retiring, rolling, deleting):
        waiting.add_argument(
            "--wait",
            type=float,
            default=WAIT_S,
            metavar="S",
            help=f"seconds that open requests may take to end (default: {WAIT_S:g})",
        )
    for starting in (registering, scaling, rolling):
        starting.add_argument(
            "--ready-wait",
            type=float,
            default=READY_S,
            metavar="S",
            help=f"seconds that new workers may take to load (default: {READY_S:g})",
        )
    options = parser.parse_args(argv)
    if not 1 <= options.port <= 65534:
        parser.error(f"--port must be in 1 to 65534, got {options.port}")
    return options


def _fields(text: str) -> dict[str, Any] | None:
    """Return the fields of a request, None for the empty text."""
    if not text:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ArgumentTypeError(f"must be a JSON object like {EXAMPLE}, or '', got {text!r}")
    return fields


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a failure ends the program in one line."""
    options = command_line(argv)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        COMMANDS[options.command](options)
    except ManagementError as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _server(options: Namespace) -> Any:
    return local_server(options.port, options.home.resolve(), options.host)


def _say(line: str) -> None:
    print(line, flush=True)


def _list(options: Namespace) -> None:
    server = _server(options)
    existing = [one for name in models(server) for one in versions(server, name)]
    if options.json:
        print(json.dumps([as_json(one) for one in existing], indent=2))
        return
    if not existing:
        print("no models")
        return
    rows = [("MODEL", "VERSION", "DEFAULT", "READY", "OPEN", "QUEUED")]
    for one in existing:
        ready = f"{one.ready}/{one.target}"
        rows.append(
            (one.name, one.version, "yes" if one.default else "", ready, _number(one.open), str(one.queued))
        )
    _print_table(rows)
    _explain(existing)


def _show(options: Namespace) -> None:
    existing = versions(_server(options), options.name)
    if options.json:
        print(json.dumps([as_json(one) for one in existing], indent=2))
        return
    for one in existing:
        mode = "continuous" if one.continuous else "batched"
        print(
            f"{one.name} {one.version}{' (default)' if one.default else ''}: {one.archive}, {mode}, "
            f"{one.ready} of {plural(one.target, 'worker')} ready, "
            f"{_number(one.open)} open, {one.queued} in the queue"
        )
        if one.workers:
            rows = [("  WORKER", "PID", "STATUS", "STATE", "OPEN", "ASKED TO")]
            for w in one.workers:
                duty = (w.duty or "").lower() if w.leaving else ""
                state = (w.state or "?").lower()
                rows.append((f"  {w.id}", str(w.pid), w.status, state, _number(w.open), duty))
            _print_table(rows)
    _explain(existing)


def _explain(existing: Iterable[Version]) -> None:
    if any(one.open is None for one in existing):
        print("?: not known, the table of these workers is not in reach from this machine and user")


def _number(n: int | None) -> str:
    return "?" if n is None else str(n)


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def as_json(version: Version) -> dict[str, Any]:
    """Return a version as JSON has it; what is not known is null."""
    return asdict(version) | {"ready": version.ready, "open": version.open}


def _register(options: Namespace) -> None:
    one = register(_server(options), options.file, options.workers, ready_s=options.ready_wait, say=_say)
    print(f"{_what(one)} is served, {plural(one.ready, 'worker')}: /predictions/{one.name}")
    if not one.default:
        print(f"it is not the default: requests reach it at /predictions/{one.name}/{one.version}")


def _scale(options: Namespace) -> None:
    workers = 0 if options.command == "retire" else options.workers
    one = scale(
        _server(options), options.name, workers, options.version,
        now=options.now, wait_s=options.wait, ready_s=getattr(options, "ready_wait", READY_S), say=_say,
    )  # fmt: skip
    print(f"{_what(one)} has {plural(one.ready, 'worker')}{'' if one.ready else ': it is answered 503'}")


def _roll(options: Namespace) -> None:
    done = roll(
        _server(options), options.name, options.file,
        keep=options.keep, smoke=options.smoke, check_seed=options.check_seed,
        wait_s=options.wait, ready_s=options.ready_wait, say=_say,
    )  # fmt: skip
    stays = (
        f"{done.before} is kept (genserve models rollback {done.name})"
        if done.kept
        else f"{done.before} is gone"
    )
    print(f"{done.name} is at {done.version}; {stays}")


def _rollback(options: Namespace) -> None:
    done = rollback(_server(options), options.name, options.version, smoke=options.smoke, say=_say)
    print(f"{done.name} is at {done.version}; {done.before} is still registered")


def _delete(options: Namespace) -> None:
    one = delete(
        _server(options), options.name, options.version, now=options.now, wait_s=options.wait, say=_say
    )
    print(f"{_what(one)} is deleted")


def _what(version: Version) -> str:
    return f"{version.name} {version.version}"


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "list": _list,
    "show": _show,
    "register": _register,
    "scale": _scale,
    "retire": _scale,
    "roll": _roll,
    "rollback": _rollback,
    "delete": _delete,
}
