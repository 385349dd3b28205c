"""A gateway in the background: start it and wait until it answers, or stop it."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from genserve.operate import process
from genserve.operate.api import LOOPBACK
from genserve.operate.environment import GATEWAY

RECORD = "gateway.json"  # in the home of the server: the gateway that was started
LOG = "gateway.log"
START_SECONDS = 300.0  # a slow disk with nothing in its cache
STOP_SECONDS = 150.0  # open requests end first
EVERYWHERE = ("0.0.0.0", "::")  # addresses that include loopback
LINES_SHOWN = 5  # of the log of one that failed


def start(home: Path, host: str, port: int, flags: Sequence[str]) -> None:
    """Start a gateway, and print the address of its page when it answers.

    Args:
        home: of the server; record and log are written there.
        host, port: that the gateway listens on.
        flags: of `genserve gateway`.

    Raises:
        ValueError: the port is in use, or it ended before it answered; the message has the end of its log.
        TimeoutError: it does not answer in time; it is stopped.
        OSError: the home cannot be written.
    """
    home.mkdir(parents=True, exist_ok=True)
    with process.locked(home):
        if before := process.running(home, RECORD):
            print(f"already running: {before['page']}")
            return
        check_port(home, host, port)
        address = f"{LOOPBACK if host in EVERYWHERE else host}:{port}"
        command = [sys.executable, "-m", "genserve", "gateway", *flags]
        with (home / LOG).open("wb") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        page = f"http://{address}/page/"
        process.record(home, {"pid": child.pid, "born": process.born(child.pid), "page": page}, RECORD)
    began = time.monotonic()
    while not answers(address):
        if child.poll() is not None:
            last = (home / LOG).read_text(errors="replace").strip().splitlines()[-LINES_SHOWN:]
            raise ValueError("\n".join(["the gateway ended at once:", *last]))
        if time.monotonic() - began > START_SECONDS:
            child.terminate()
            raise TimeoutError(f"the gateway does not answer after {START_SECONDS:g} s: see {home / LOG}")
        time.sleep(0.1)
    print(f"ready after {time.monotonic() - began:.1f} s: {page}", flush=True)


def check_port(home: Path, host: str, port: int) -> None:
    """Look whether a gateway can listen, before anything slow is done.

    Args:
        home: of the server; a gateway in the background has its record there.

    Raises:
        ValueError: the port is in use; the message says what may hold it.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return  # whoever listens says what is wrong with the address
    family, kind, protocol, _, address = places[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return
            page = (process.running(home, RECORD) or {}).get("page", "")
            who = f"the gateway of {page} holds it" if f":{port}/" in page else "maybe a gateway holds it"
            raise ValueError(
                f"port {port} is in use: {who} ({GATEWAY} stop ends one that runs in the background), "
                "else choose another one with --port"
            ) from None


def answers(address: str) -> bool:
    """Return whether a web server answers on HOST:PORT, whatever it says."""
    direct = build_opener(ProxyHandler({}))
    try:
        with direct.open(f"http://{address}/live", timeout=5):
            return True
    except HTTPError as error:
        error.close()
        return True
    except (OSError, HTTPException):
        return False


def stop(home: Path) -> None:
    """Stop the gateway that `start` started, and wait until its open requests have ended.

    Raises:
        TimeoutError: it has not ended in time.
    """
    gateway = process.running(home, RECORD)
    if gateway is None:
        print("not running")
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(gateway["pid"], signal.SIGTERM)
    began = time.monotonic()
    while process.alive(gateway["pid"]):
        if time.monotonic() - began > STOP_SECONDS:
            raise TimeoutError(f"process {gateway['pid']} has not ended after {STOP_SECONDS:g} s")
        time.sleep(0.1)
    (home / RECORD).unlink(missing_ok=True)
    print("stopped")
