"""Start, stop and look at the local TorchServe.

genserve serve start      all of model_store/; predictions on port 8080, management 8081, metrics 8082
genserve serve status     which models are ready
genserve serve logs       the end of its log
genserve serve stop
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from genserve.operate.environment import ARCHIVE, SERVE, interpreter, java_home, versions
from genserve.operate.management import worker_states
from genserve.operate.process import alive, born, running
from genserve.places import PROJECT, kept

START_S = 180  # until every worker has loaded its model
SOCKET_PATH_MAX = 100  # bytes that a Unix socket's path may have, a few short of the least system


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for; paths are absolute."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["start", "stop", "status", "logs"])
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        help="of predictions (default: 8080); management is the next one, then metrics, gRPC",
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
        default=kept(".serve"),
        help="logs and temporary files of this server (default: .serve)",
    )
    options = parser.parse_args(argv)
    if not 1 <= options.port <= 65531:
        sys.exit(f"--port must be in 1 to 65531 (four more behind it), got {options.port}")
    options.home, options.model_store = options.home.resolve(), options.model_store.resolve()
    return options


def run(argv: list[str]) -> None:
    """Do what the flags ask for, one start or stop at a time; a failure ends the program in one line."""
    options = command_line(argv)
    try:
        options.home.mkdir(parents=True, exist_ok=True)
        with (options.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            {"start": start, "stop": stop, "status": status, "logs": logs}[options.command](options)
    except KeyboardInterrupt:
        sys.exit(f"stopped waiting; {SERVE} stop ends the server")
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(f"{error.filename or 'serve'}: {error.strerror}")


def start(options: Namespace) -> None:
    """Start the server and wait for its workers, unless it runs and no archive is newer than it."""
    if server := running(options.home):
        if (server["port"], server["store"]) != (options.port, str(options.model_store)):
            sys.exit(f"a server of {server['store']} runs on port {server['port']}: {SERVE} stop first")
        since = (options.home / "server.json").stat().st_mtime
        if all(archive.stat().st_mtime < since for archive in options.model_store.glob("*.mar")):
            print(f"already running on port {options.port}")
            wait(options, server["pid"])
            return
        print("there are newer archives: starting again")
        stop(options)
    python = interpreter()
    versions(python, "torchserve", "torch")
    if not list(options.model_store.glob("*.mar")):
        sys.exit(f"there is no archive in {options.model_store}: run {ARCHIVE} first")
    check_ports(options.port)
    temporary, environment = prepare(options, python)
    command = [
        python, "-m", "ts.model_server", "--start", "--foreground", "--ncs",
        "--ts-config", PROJECT / "config.properties", "--log-config", PROJECT / "log4j2.xml",
        "--model-store", options.model_store,
    ]  # fmt: skip
    with (options.home / "console.log").open("wb") as console:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=options.home, env=environment,
            stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    server = {
        "pid": process.pid,
        "born": born(process.pid),
        "port": options.port,
        "store": str(options.model_store),
        "temporary": str(temporary),
    }
    (options.home / "server.json").write_text(json.dumps(server))
    wait(options, process.pid)


def check_ports(first: int) -> None:
    """Exit if one of the five ports of a server cannot be listened on."""
    for port in range(first, first + 5):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except PermissionError:
                sys.exit(f"port {port} needs more rights than you have: give another --port")
            except OSError:
                sys.exit(
                    f"port {port} is in use (a server needs {first} to {first + 4}): "
                    "stop what holds it or give another --port"
                )


def prepare(options: Namespace, python: Path) -> tuple[Path, dict[str, str]]:
    """Make the server's folders; return the one of temporary files, and the server's environment."""
    temporary, logs_folder = options.home / "tmp", options.home / "logs"
    shutil.rmtree(temporary, ignore_errors=True)  # unpacked archives that a killed server left
    if len(str(temporary / ".ts.sock.9000")) > SOCKET_PATH_MAX:
        temporary = Path(tempfile.mkdtemp(prefix="genserve-"))
    for folder in (temporary, logs_folder):
        folder.mkdir(parents=True, exist_ok=True)
    # without PYTHONPATH: no work tree may shadow an archive
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return temporary, environment | {
        "PATH": f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "JAVA_HOME": java_home(python),
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "LOG_LOCATION": str(logs_folder),
        "METRICS_LOCATION": str(logs_folder),
        "TS_METRICS_CONFIG": str(PROJECT / "metrics.yaml"),
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{options.port}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{options.port + 1}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{options.port + 2}",
        "TS_GRPC_INFERENCE_PORT": str(options.port + 3),
        "TS_GRPC_MANAGEMENT_PORT": str(options.port + 4),
    }


def wait(options: Namespace, pid: int) -> None:
    """Return when every worker has loaded its model; exit when that will not happen."""
    began = time.monotonic()
    log = options.home / "console.log"
    while time.monotonic() - began < START_S:
        if not alive(pid):
            sys.exit(f"the server ended; the end of {log}:\n{tail(options.home)}")
        workers = worker_states(options.port)
        if workers and all(state == "READY" for states in workers.values() for state in states or [""]):
            address, seconds = f"http://127.0.0.1:{options.port}", time.monotonic() - began
            print(f"ready after {seconds:.1f} s on {address}: {', '.join(workers)}")
            return
        time.sleep(0.2)
    sys.exit(f"not ready after {START_S} s; the end of {log}:\n{tail(options.home)}")


def stop(options: Namespace) -> None:
    """End the server and remove its temporary files."""
    server = running(options.home)
    if not server:
        print("not running")
        return
    os.killpg(server["pid"], signal.SIGTERM)  # the launcher, Java and the workers are one process group
    for _ in range(100):
        if not alive(server["pid"]):
            break
        time.sleep(0.1)
    else:
        os.killpg(server["pid"], signal.SIGKILL)
    (options.home / "server.json").unlink()
    shutil.rmtree(server["temporary"], ignore_errors=True)
    print("stopped")


def status(options: Namespace) -> None:
    """Print the state of each model's workers."""
    server = running(options.home)
    if not server:
        sys.exit("not running")
    workers = worker_states(server["port"])
    if workers is None:
        sys.exit(f"the server on port {server['port']} does not answer (yet); {SERVE} logs")
    for model, states in workers.items():
        print(
            f"http://127.0.0.1:{server['port']}/predictions/{model}  workers: {', '.join(states) or 'none'}"
        )


def logs(options: Namespace) -> None:
    """Print the end of the log."""
    print(tail(options.home, 60))


def tail(home: Path, lines: int = 25) -> str:
    log = home / "console.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "no log yet"
