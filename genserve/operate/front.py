"""Stand in front of the host's management API, so that what it would not survive never reaches it.

    python -m genserve.operate.front --port 8081 --management unix:PATH --predictions URL --server PID ...

The host itself listens on a Unix socket, which no page in a browser can reach. Its answers stay as they are
documented. What differs from the bare host:

GET /models/NAME?customized=true    is answered from a prediction. The host would ask the worker for ever.
POST /models                        waits for the workers here. The host would let every fourth client wait.
PUT with fewer workers, DELETE      let the workers that go end what they have open.
pages in a browser                  are refused, and so are archives from outside the model store.
"""

import json
import logging
import re
import threading
import time
from argparse import ArgumentParser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from genserve.operate.api import ManagementError, Server
from genserve.operate.management_calls import Answer, Call, answer, refusal
from genserve.operate.origins import foreign
from genserve.operate.process import alive

log = logging.getLogger(__name__)

BODY_MAX = 65536  # bytes of a request; the API's parameters are in the query
PATIENCE_S = 30.0  # for a client that is slow
CONNECTIONS_MAX = 64
LOOK_S = 0.2


class Front(ThreadingHTTPServer):
    """An HTTP server on loopback for the API of a server.

    Args:
        port: to listen on.
        server: the host behind it.

    Raises:
        OSError: the port cannot be listened on.
    """

    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, port: int, server: Server) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.host = server
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def process_request(self, request: socket | Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there are not too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket | Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: socket | Any, client_address: Any) -> None:
        """Pass over a client that went away."""


class Connection(BaseHTTPRequestHandler):
    """A client's connection."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S
    server: Front

    def do_GET(self) -> None:
        """Answer a request of any method."""
        result = self._guarded()
        self.send_response(result.status)
        self.send_header("Content-Type", result.content_type or "application/json")
        self.send_header("Content-Length", str(len(result.body)))
        if result.status >= HTTPStatus.BAD_REQUEST:
            self.send_header("Connection", "close")  # the body of a refused request may not have been read
        self.end_headers()
        self.wfile.write(result.body)

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the host has a log of what reaches it."""

    def _guarded(self) -> Answer:
        try:
            if reason := foreign(self.headers.get):
                return refusal(403, f"management answers this machine's own programs only: {reason}")
            length = self.headers.get("Content-Length", "0")
            if "Transfer-Encoding" in self.headers or not length.isdecimal():
                return refusal(411, "a body needs a Content-Length")
            if int(length) > BODY_MAX:
                return refusal(413, f"a body has at most {BODY_MAX} bytes")
            return answer(self.server.host, self._call(self.rfile.read(int(length))))
        except ManagementError as problem:
            return refusal(problem.status if problem.status != 502 else 500, str(problem))
        except ValueError as error:
            return refusal(400, str(error))
        except Exception:
            log.exception("management: %s", self.requestline)
            return refusal(500, "the front of the management API failed; its log says why")

    def _call(self, body: bytes) -> Call:
        """Return the request.

        Raises:
            ValueError: its body is no JSON object, or its address no URL.
        """
        if not re.fullmatch("[!-~]+", self.path):
            raise ValueError("the address has characters that no URL has")
        parts = urlsplit(self.path)
        parameters = {}
        if body.strip() and self.headers.get("Content-Type", "").lower().startswith("application/json"):
            parameters = json.loads(body)
            if not isinstance(parameters, dict):
                raise ValueError("the body is no JSON object")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Call(self.command, parts.path.rstrip("/") or "/", query, parameters)


def main() -> None:
    """Serve until the host's process has ended."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--management", required=True)
    parser.add_argument("--server", type=int, required=True, help="its process")
    for folder in ("store", "logs", "temporary"):
        parser.add_argument(f"--{folder}", type=Path)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s")
    host = Server(options.predictions, options.management, options.store, options.logs, options.temporary)
    front = Front(options.port, host)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    while alive(options.server):
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
