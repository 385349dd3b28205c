"""Start the process of a server: Java with the host's front end, on ports, folders and limits of its own."""

import contextlib
import ipaddress
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from genserve.files import write_atomic
from genserve.operate.api import LOOPBACK
from genserve.operate.environment import interpreter, java_home, versions
from genserve.operate.logs import size
from genserve.operate.process import alive, born, record
from genserve.operate.store import Archive
from genserve.places import PACKAGES, PROJECT

PORTS = 5  # from --port on: predictions, management, metrics and two of gRPC
SOCKET_PATH_MAX = 100  # bytes that a Unix socket's path may have, a few short of the least system
# Open files of Java, almost all of them connections. Each holds a body of at most max_request_size; all of
# them must fit into the direct memory that vmargs in config.properties give: without it the server hangs.
FILES_MAX = 3072
SPARE_BYTES = 100 * 10**6  # on the disk of the temporary files, beside unpacked archives: logs rotate at less
TRIAL_BYTES = 2**20
SOCKET = "management.sock"  # of the host's management API, in the folder of temporary files
FRONT_LOG = "management.log"


def launch(
    options: Namespace, archives: Sequence[Archive], faults: dict[str, str], *, attached: bool
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start a server, and write its record; it has not loaded anything yet.

    Args:
        options: of the command line: home, model_store, port, host and management.
        archives: that it loads.
        faults: files of the store that are left out, and why.
        attached: its log goes to our own output, as in a container, and not to a file.

    Raises:
        SystemExit: something is missing or in the way.
        OSError: the disk is full, a folder cannot be written.
    """
    python = interpreter()
    versions(python, "torchserve", "torch")
    check_ports(options.host, options.port)
    temporary, environment = prepare(options, python, attached)
    check_disk(temporary, sum(archive.unpacked for archive in archives))
    management = str(temporary / SOCKET) if _by_socket(options) else options.port + 1
    words = command(python, options.model_store, temporary, [archive.file for archive in archives])
    with contextlib.ExitStack() as stack:
        console: IO[bytes] | None = None
        if not attached:
            console = stack.enter_context((options.home / "console.log").open("wb"))
        stack.enter_context(files_limited(FILES_MAX))
        process = subprocess.Popen(
            words, cwd=options.home, env=environment,
            stdin=subprocess.DEVNULL, stdout=console, stderr=None if attached else subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone, and the workers are in Java's process group
        )  # fmt: skip
    server = {
        "pid": process.pid,
        "born": born(process.pid),
        "started": time.time(),
        "port": options.port,
        "management": management,
        "store": str(options.model_store),
        "temporary": str(temporary),
        "log_from": size(options.home),  # where its part of the log begins
        "archives": [archive.name for archive in archives],
        "left_out": faults,
    }
    if options.management == "port" and _by_socket(options):
        server["front"] = start_front(options, server, attached=attached)
    record(options.home, server)
    return process, server


def _by_socket(options: Namespace) -> bool:
    """Return whether the host's management is on a Unix socket; Java has those on Linux."""
    return options.management == "unix" or sys.platform == "linux"


def start_front(options: Namespace, server: dict[str, Any], *, attached: bool) -> int:
    """Start the front of the management API, which ends with the server; return its process."""
    logs_folder = str(options.home / "logs")
    words = [
        sys.executable, "-m", "genserve.operate.front", "--port", str(options.port + 1),
        "--management", f"unix:{server['management']}",
        "--predictions", address_of(options).replace("0.0.0.0", LOOPBACK),
        "--server", str(server["pid"]), "--store", server["store"],
        "--logs", logs_folder, "--temporary", server["temporary"],
    ]  # fmt: skip
    with (options.home / FRONT_LOG).open("ab") as file:
        return subprocess.Popen(
            words, cwd=options.home,
            env=os.environ | {"PYTHONPATH": str(PACKAGES), "LOG_LOCATION": logs_folder},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=None if attached else file,
            start_new_session=True,
        ).pid  # fmt: skip


def front_ended(server: dict[str, Any]) -> bool:
    """Return whether a server had a front of its management, and it has ended."""
    return "front" in server and not alive(server["front"])


def address_of(options: Namespace) -> str:
    """Return the URL of predictions."""
    host = f"[{options.host}]" if ipaddress.ip_address(options.host).version == 6 else options.host
    return f"http://{host}:{options.port}"


def command(python: Path, store: Path, temporary: Path, archives: Sequence[str]) -> list[str]:
    """Return the command that runs Java: that of the host's own launcher, which hides how it ended."""
    program = "import ts, os; print(os.path.dirname(ts.__path__[0]))"
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True)
    packages = Path(done.stdout.strip())
    config = PROJECT / "config.properties"
    return [
        str(Path(java_home(python)) / "bin" / "java"),
        f"-Dmodel_server_home={packages}",
        f"-Dlog4j.configurationFile={(PROJECT / 'log4j2.xml').as_uri()}",
        f"-Djava.io.tmpdir={temporary}",
        *virtual_machine(config),
        "-cp", f".:{packages / 'ts' / 'frontend' / '*'}", "org.pytorch.serve.ModelServer",
        "--python", str(python), "-f", str(config), "-s", str(store), "-ncs", "-m", *archives,
    ]  # fmt: skip


def virtual_machine(config: Path) -> list[str]:
    """Return the flags of Java in the host's settings."""
    lines = [line.partition("=") for line in config.read_text().splitlines()]
    return next((value.split() for name, _, value in lines if name.strip() == "vmargs"), [])


@contextlib.contextmanager
def files_limited(n: int) -> Iterator[None]:
    """Let processes that a block starts have at most n open files; Java keeps to it by a flag in vmargs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = min(limit for limit in (n, soft, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_ports(host: str, first: int) -> None:
    """Exit if one of the ports of a server cannot be listened on."""
    for port in range(first, first + PORTS):
        address = host if port in (first, first + 2) else LOOPBACK
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except PermissionError:
                sys.exit(f"port {port} needs more rights than you have: give another --port")
            except OSError as error:
                if address != LOOPBACK and not _is_ours(address):
                    sys.exit(f"--host {address} is no address of this machine ({error.strerror})")
                sys.exit(
                    f"port {port} is in use (a server needs {first} to {first + PORTS - 1}): "
                    "stop what holds it or give another --port"
                )


def _is_ours(address: str) -> bool:
    """Return whether this machine can listen on an address, on any port."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def check_disk(temporary: Path, unpacked: int) -> None:
    """Exit if the disk has no room for what the host unpacks."""
    free, needed = shutil.disk_usage(temporary).free, unpacked + SPARE_BYTES
    if free < needed:
        sys.exit(
            f"the disk of {temporary} has {free / 1e6:.0f} MB free, and this server needs "
            f"{needed / 1e6:.0f}: make room or give another --home"
        )
    trial = temporary / "trial"  # a quota says nothing before it is reached
    write_atomic(trial, bytes(TRIAL_BYTES))
    trial.unlink()


def prepare(options: Namespace, python: Path, attached: bool) -> tuple[Path, dict[str, str]]:
    """Make the server's folders; return the one of temporary files, and the server's environment."""
    temporary, logs_folder = options.home / "tmp", options.home / "logs"
    shutil.rmtree(temporary, ignore_errors=True)  # unpacked archives that a killed server left
    (options.home / FRONT_LOG).unlink(missing_ok=True)
    if len(str(temporary / SOCKET)) > SOCKET_PATH_MAX:
        temporary = Path(tempfile.mkdtemp(prefix="genserve-"))
    for folder in (temporary, logs_folder):
        folder.mkdir(parents=True, exist_ok=True)
    # without PYTHONPATH: no work tree may shadow an archive
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    host = f"[{options.host}]" if ipaddress.ip_address(options.host).version == 6 else options.host
    management = f"http://{LOOPBACK}:{options.port + 1}"
    return temporary, environment | {
        "PATH": f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "JAVA_HOME": java_home(python),
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "LOG_LOCATION": str(logs_folder),
        "METRICS_LOCATION": str(logs_folder),
        "CONSOLE_LEVEL": "info" if attached else "off",  # log4j2.xml; what is in a file has files that rotate
        "TS_METRICS_CONFIG": str(PROJECT / "metrics.yaml"),
        "TS_INFERENCE_ADDRESS": address_of(options),
        "TS_MANAGEMENT_ADDRESS": (f"unix:{temporary / SOCKET}" if _by_socket(options) else management),
        "TS_METRICS_ADDRESS": f"http://{host}:{options.port + 2}",
        "TS_GRPC_INFERENCE_PORT": str(options.port + 3),
        "TS_GRPC_MANAGEMENT_PORT": str(options.port + 4),
    }
