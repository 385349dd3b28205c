"""The management API of a server on this machine: a port on loopback, or a Unix socket."""

import json
import socket
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket, which no page in a browser can reach."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(address: int | str, timeout: float = 10) -> HTTPConnection:
    """Return a connection to the API.

    Args:
        address: a port on loopback, or the path of a Unix socket.
        timeout: in seconds, of every wait.
    """
    if isinstance(address, str):
        return UnixConnection(address, timeout)
    return HTTPConnection("127.0.0.1", address, timeout=timeout)


def states(address: int | str) -> dict[str, list[str]] | None:
    """Return the state of the workers of each model, all its versions, or none while nothing answers."""
    models = workers(address)
    return None if models is None else {name: list(by_number.values()) for name, by_number in models.items()}


def workers(address: int | str) -> dict[str, dict[str, str]] | None:
    """Return the states of the workers of each model, all its versions, by the host's numbers for them.

    None while the server does not answer.
    """
    try:
        models = [entry["modelName"] for entry in get(address, "/models?limit=1000")["models"]]
        return {
            m: {
                w["id"]: w["status"]
                for version in get(address, f"/models/{quote(m, safe='')}/all")
                for w in version["workers"]
            }
            for m in models
        }
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None


def get(address: int | str, path: str, timeout: float = 10) -> Any:
    """Return what a path of the API answers, as JSON.

    Raises:
        OSError, HTTPException: nothing answers there.
        ValueError: the answer is no JSON.
    """
    link = connection(address, timeout)
    try:
        link.request("GET", path)
        return json.loads(link.getresponse().read())
    finally:
        link.close()


def put(address: int | str, path: str, timeout: float = 30) -> int:
    """Change something, and return the status of the answer.

    Raises:
        OSError, HTTPException: nothing answers there.
    """
    link = connection(address, timeout)
    try:
        link.request("PUT", path)
        answer = link.getresponse()
        answer.read()
        return answer.status
    finally:
        link.close()
