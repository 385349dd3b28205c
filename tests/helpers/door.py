"""The shipped nginx in front of a server, as deploy/compose.yaml starts it, with its own certificate."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from program import background
from real_server import ROOT, free_ports, wait_until

TOKENS = {"alice": "a" * 64, "mallory": "m" * 64}


def nginx() -> str:
    """Return the path of nginx; skip the test where it is not installed."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or pytest.skip(
        "there is no nginx: install it (Debian: apt-get install nginx)"
    )


@dataclass
class Door:
    """A proxy that runs.

    Args:
        port: of TLS.
        folder: with conf/ and run/.
    """

    port: int
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "conf/secrets/tls.crt"

    @property
    def log(self) -> list[str]:
        """What nginx has written: a line for each request, and its errors."""
        return (self.folder / "nginx.log").read_text().splitlines()

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def client(self, name: str | None = "alice", **headers: str) -> httpx.Client:
        """Return a client with somebody's token, or with none."""
        token = {"Authorization": f"Bearer {TOKENS[name]}"} if name else {}
        address = f"https://localhost:{self.port}"
        return httpx.Client(base_url=address, verify=self.trusted, headers=token | headers, timeout=60)

    def connection(self) -> ssl.SSLSocket:
        """Return a connection for a client that has its own idea of HTTP."""
        plain = socket.create_connection(("localhost", self.port), timeout=30)
        return self.trusted.wrap_socket(plain, server_hostname="localhost")


@contextlib.contextmanager
def opened(folder: Path, *servers: int) -> Iterator[Door]:
    """Run the shipped configuration in front of ports of this machine, until the block ends."""
    program, port = nginx(), free_ports(1)
    conf, run = folder / "conf", folder / "run"
    shutil.copytree(ROOT / "deploy" / "nginx", conf)
    run.mkdir()
    (conf / "listen.conf").write_text(f"listen 127.0.0.1:{port} ssl;\n")
    upstream = (conf / "upstream.conf").read_text().splitlines()
    shipped = [line for line in upstream if "genserve:8080" in line]
    lines = [line.replace("genserve:8080", f"127.0.0.1:{server}") for server in servers for line in shipped]
    kept = [line for line in upstream if line not in shipped]
    (conf / "upstream.conf").write_text("\n".join([*kept[:-1], *lines, kept[-1]]))
    secrets = conf / "secrets"
    secrets.mkdir()
    (secrets / "tokens.map").write_text("".join(f'"Bearer {t}" {n};\n' for n, t in TOKENS.items()))
    certificate = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    files = [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        secrets / "tls.key",
        "-out",
        secrets / "tls.crt",
    ]
    subprocess.run([*certificate, *files], check=True, capture_output=True)
    user = "user root; " if os.getuid() == 0 else ""  # the test's folders are closed to others
    command = [program, "-p", run, "-c", conf / "nginx.conf", "-g", f"{user}daemon off;"]
    log = folder / "nginx.log"
    with log.open("wb") as output, background(command, stdout=output, stderr=output) as process:

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        wait_until(up, True)
        yield Door(port, folder)
