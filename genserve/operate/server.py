"""Start, stop and look at the local TorchServe.

genserve serve start      all of model_store/; predictions on port 8080, management 8081, metrics 8082
genserve serve status     which models are ready, and what they have open
genserve serve logs       the end of its log
genserve serve stop       once everything that is open has ended; Ctrl-C twice, or --now, kills it
genserve serve run        start in the foreground, for a container: SIGTERM or Ctrl-C stops it, twice kills it

start ends with 0 if all of the store is ready, with 3 if other models than the named ones are, else with 1.
The more archives there are, the longer it waits.
"""

import ipaddress
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from genserve.operate.environment import ARCHIVE, SERVE
from genserve.operate.launch import PORTS, front_ended, launch, start_front
from genserve.operate.logs import tail
from genserve.operate.management import workers as workers_of
from genserve.operate.process import home, locked, record, running
from genserve.operate.starting import Starting, wait
from genserve.operate.stopping import attend, open_requests, stop
from genserve.operate.store import Archive, outshone, survey, unpacked_at
from genserve.places import kept

LOG_LINES = 60


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for; paths are absolute."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["start", "stop", "status", "logs", "run"])
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        help="of predictions (default: 8080); management is the next one, then metrics, gRPC",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address of predictions and metrics, 0.0.0.0 for all (default: 127.0.0.1); "
        "management stays on loopback",
    )
    parser.add_argument(
        "--management",
        choices=["port", "unix"],
        default="port",
        help="management on the next port of loopback (default: port), or on a Unix socket in the home, "
        "which no web page reaches",
    )
    parser.add_argument(
        "--model-store",
        type=Path,
        default=kept("model_store"),
        help="folder of archives (default: model_store)",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=home(),
        help="logs and temporary files of this server (default: $GENSERVE_HOME, or .serve)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        help="seconds that a stop waits for what is open (default: the deadline of the archives and 15 s)",
    )
    parser.add_argument("--now", action="store_true", help="stop: kill it, and what it has open")
    options = parser.parse_args(argv)
    if not 1 <= options.port <= 65536 - PORTS:
        sys.exit(f"--port must be in 1 to {65536 - PORTS} (four more behind it), got {options.port}")
    if options.timeout is not None and not 0 <= options.timeout <= 86400:
        sys.exit(f"--timeout must be in 0 to 86400 seconds, got {options.timeout:g}")
    try:
        ipaddress.ip_address(options.host)
    except ValueError:
        sys.exit(f"--host must be an IP address such as 0.0.0.0, got {options.host!r}")
    options.home, options.model_store = options.home.resolve(), options.model_store.resolve()
    return options


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a failure ends the program in one line."""
    options = command_line(argv)
    commands = {"start": start, "stop": end, "status": status, "logs": logs, "run": foreground}
    try:
        options.home.mkdir(parents=True, exist_ok=True)
        commands[options.command](options)
    except KeyboardInterrupt:
        sys.exit(f"stopped waiting; {SERVE} stop ends the server")
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(f"{error.filename or 'serve'}: {error.strerror or error}")


def start(options: Namespace) -> None:
    """Start the server and wait for its workers, unless it runs and has loaded every archive as it is now."""
    archives, faults = survey(options.model_store)
    while True:
        with locked(options.home):
            server = running(options.home)
            if not server:
                check_store(options, bool(archives), faults)
                _, server = launch(options, archives, faults, attached=False)
                tell(archives)
                break
            check_other(options, server)
            changed = newer(archives, server)
            if not changed:
                print(f"already running on port {options.port}")
                if front_ended(server):
                    server["front"] = start_front(options, server, attached=False)
                    record(options.home, server)
                    print("management had ended: started again")
                break
        print(f"there are newer archives ({', '.join(changed)}): starting again")
        stop(options.home, server, options.timeout)
    wait(options.home, Starting(options.home, server, faults))


def foreground(options: Namespace) -> None:
    """Run a server until it ends or is told to; the exit code tells which."""
    archives, faults = survey(options.model_store)
    with locked(options.home):
        if server := running(options.home):
            check_other(options, server)
            sys.exit(f"a server runs already: {SERVE} stop first")
        check_store(options, bool(archives), faults)
        process, server = launch(options, archives, faults, attached=True)
        tell(archives)

    def mend() -> None:
        if front_ended(server):
            with locked(options.home):
                server["front"] = start_front(options, server, attached=True)
                record(options.home, server)

    sys.exit(attend(options.home, process, Starting(options.home, server, faults), options.timeout, mend))


def newer(archives: list[Archive], server: dict[str, Any]) -> list[str]:
    """Return the files of the store that a server has not loaded, or not as they are now."""
    loaded = unpacked_at(Path(server["temporary"]))  # registered later, too
    since = {a.file: max(server["started"], loaded.get((a.name, a.version), 0.0)) for a in archives}
    return [file for file, time in since.items() if (Path(server["store"]) / file).stat().st_mtime >= time]


def tell(archives: list[Archive]) -> None:
    """Print which models have a newer version in the store than their default."""
    for default, newest in outshone(archives):
        print(
            f"{default.name}: {default.version} is the default, as it was chosen last; "
            f"{newest.version} is served beside it",
            flush=True,
        )


def check_store(options: Namespace, any_archive: bool, faults: dict[str, str]) -> None:
    """Exit if nothing in the store can be served."""
    if any_archive:
        return
    if faults:
        lines = "\n".join(f"{file}: {reason}" for file, reason in faults.items())
        sys.exit(f"no archive in {options.model_store} can be served:\n{lines}")
    sys.exit(f"there is no archive in {options.model_store}: run {ARCHIVE} first")


def check_other(options: Namespace, server: dict[str, object]) -> None:
    """Exit if the server of this home is another one than the flags ask for, or is about to stop."""
    if server.get("stopping"):
        sys.exit(f"the server of {options.home} is stopping: try again when it is gone")
    if (server["port"], server["store"]) != (options.port, str(options.model_store)):
        sys.exit(f"a server of {server['store']} runs on port {server['port']}: {SERVE} stop first")


def end(options: Namespace) -> None:
    """End the server and remove its temporary files."""
    server = running(options.home)
    if not server:
        print("not running")
        return
    stop(options.home, server, 0 if options.now else options.timeout)


def status(options: Namespace) -> None:
    """Print the state of each model's workers."""
    server = running(options.home)
    if not server:
        sys.exit("not running")
    for file, reason in server["left_out"].items():
        print(f"{file} is left out: {reason}")
    workers = workers_of(server["management"])
    if workers is None:
        sys.exit(f"the server on port {server['port']} does not answer (yet); {SERVE} logs")
    if server.get("stopping"):
        print("stopping: it takes no more requests")
    if front_ended(server):
        print(f"management on port {server['port'] + 1} has ended: {SERVE} start starts it again")
    n_open = open_requests(server)
    for model, states in workers.items():
        words = ", ".join(states.values()) or "none"
        count = f"  open: {n_open[model]}" if model in n_open else ""
        print(f"http://127.0.0.1:{server['port']}/predictions/{model}  workers: {words}{count}")


def logs(options: Namespace) -> None:
    """Print the end of the log."""
    print(tail(options.home, LOG_LINES))
