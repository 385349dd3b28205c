"""The two APIs of a server: predictions, and management, which lists, registers and scales models.

What goes wrong is a `ManagementError`, in words for the person who asked: the host's own answers are often
riddles.
"""

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from genserve.operate.management import UnixConnection
from genserve.operate.process import running

CALL_S = 60  # seconds that the server may take for one answer of the management API
ANSWER_S = 600  # and for one prediction
LOOPBACK = "127.0.0.1"
UNIX = "unix:"  # begins the address of an API on a Unix socket


class ManagementError(Exception):
    """A model of a server cannot be changed or looked at as was asked; the text says why.

    Args:
        text: for the person who asked.
        status: of HTTP, for programs that pass it on: 4xx if another request can succeed.
    """

    def __init__(self, text: str, status: int = 502) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Server:
    """A TorchServe, and as much of it as this process can reach.

    Args:
        predictions, management: URLs of its two APIs; `unix:PATH` of a Unix socket.
        store: its folder of archives.
        logs: its folder of logs.
        temporary: its folder of temporary files, in which it unpacks archives.
    """

    predictions: str = "http://127.0.0.1:8080"
    management: str = "http://127.0.0.1:8081"
    store: Path | None = None
    logs: Path | None = None
    temporary: Path | None = None

    def call(self, method: str, *words: str, **parameters: object) -> Any:
        """Call the management API and return its answer, as JSON.

        Args:
            words: of the path behind `/models`.

        Raises:
            ManagementError: the server does not answer, or refuses.
        """
        path = "/".join(["/models", *(quote(word, safe="") for word in words)])
        path += f"?{urlencode(parameters)}" if parameters else ""
        status, _, body = exchange(self.management, method, path)
        try:
            answer = json.loads(body)
        except ValueError:
            raise ManagementError(
                f"{self.management} is no management API: it answers {status} without JSON"
            ) from None
        if status >= 300:
            raise ManagementError(*in_words(status, str(answer.get("message", answer)), words))
        return answer

    def predict(self, name: str, version: str, fields: Mapping[str, object]) -> tuple[int, str, bytes]:
        """Send a request to a version; return status, content type and body.

        Raises:
            ManagementError: the server does not answer.
        """
        path = f"/predictions/{quote(name, safe='')}/{quote(version, safe='')}"
        return exchange(self.predictions, "POST", path, json.dumps(fields).encode(), ANSWER_S)


def local_server(port: int = 8080, home: Path | None = None, host: str = LOOPBACK) -> Server:
    """Return the server on a port.

    Args:
        port: of predictions; management is the next one.
        home: the folder of `genserve serve`; if its server has this port, its files are in reach.
        host: of another machine, whose files are never in reach.
    """
    server = Server(f"http://{host}:{port}", f"http://{host}:{port + 1}")
    ours = running(home) if home and host == LOOPBACK else None
    if home is None or ours is None or ours["port"] != port:
        return server
    management = ours.get("management")  # a number is the port
    return replace(
        server,
        management=f"{UNIX}{management}" if isinstance(management, str) else server.management,
        store=Path(ours["store"]),
        logs=home / "logs",
        temporary=Path(ours["temporary"]),
    )


def exchange(
    base: str, method: str, path: str, body: bytes | None = None, seconds: float = CALL_S
) -> tuple[int, str, bytes]:
    """Send one request, of JSON if it has a body; return status, content type and body of the answer.

    Args:
        base: URL of the API, or `unix:PATH`.
        seconds: that every wait for the server may take.

    Raises:
        ManagementError: no answer.
    """
    parts = urlsplit(base)
    connection: http.client.HTTPConnection
    if base.startswith(UNIX):
        connection = UnixConnection(base.removeprefix(UNIX), seconds)
    elif parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=seconds)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=seconds)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise ManagementError(f"{base} does not answer ({reason}): is the server up?", 503) from error
    finally:
        connection.close()


RIDDLES = (  # what the host's message has in it, what it means, and the status for others
    (r"Model not found: ", "there is no model {name}: `genserve models list` has those that there are", 404),
    (r"Model version:? null", "{name} is half deleted, a name without a version: restart the server", 409),
    (r"Model version:? .* does not exist", "{name} has no version {version}", 404),
    (r"Model not found at: ", "the server has no such file in its model store", 404),
    (r"does not match any allowed URL", "the server takes archives from its model store only", 400),
    (r"already registered", "this version of the model is registered already", 409),
    (r"Cannot remove default", "{version} is the default of {name}: make another one the default first", 409),
    (r"Model name is not defined", "the server cannot read the file as an archive", 400),
    (r"Failed to save model", "the server cannot unpack the archive: it is torn, or a disk is full", 400),
    (r"Failed to start workers", "the workers do not start: the server's model_log.log says why", 502),
    (r"ConcurrentModification", "requests were open: look at the model before anything else", 502),
    (r"[Tt]oken", "the server wants a token (disable_token_authorization is not set)", 403),
)  # fmt: skip


def in_words(status: int, message: str, words: tuple[str, ...] = ()) -> tuple[str, int]:
    """Return what a refusal of the management API means, and the status to pass on.

    Args:
        status, message: of the host's answer.
        words: of the path: name and version, as far as it had them.
    """
    name, version = (*words, "the model", "the version")[:2] if words else ("the model", "the version")
    if status == 405:
        return "the server does not let models be registered (enable_model_api is not set)", 403
    for pattern, meaning, passed_on in RIDDLES:
        if re.search(pattern, message):
            return (
                f"{meaning.format(name=name, version=version)} (the server: {status}, {message})",
                passed_on,
            )
    return f"the server refuses: {status}, {message}", 502
