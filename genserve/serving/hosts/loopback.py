"""Reach the host from one of its workers, through loopback."""

import http.client
import logging
import os
import ssl
import sys
from collections.abc import Callable
from urllib.parse import quote, urlsplit

log = logging.getLogger(__name__)

# the host's defaults, where its environment does not say otherwise
INFERENCE, GRPC_PORT = "http://127.0.0.1:8080", 7070
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # an address to listen on, and one to call


def worker_number() -> int:
    """Return the host's number for this worker, 0 in no worker: its port, or the end of its socket's name."""
    for flag in ("--sock-name", "--port"):
        if flag in sys.argv[:-1]:
            return int(sys.argv[sys.argv.index(flag) + 1].rpartition(".")[2])
    return 0


def grpc_address() -> tuple[str, int]:
    """Return where the host's gRPC server for predictions listens."""
    return "127.0.0.1", int(os.environ.get("TS_GRPC_INFERENCE_PORT", GRPC_PORT))


def poster(model: str, version: str, header: str) -> Callable[[str], int]:
    """Return a function that posts an empty request to a model, with a token in a header.

    It waits for the answer for as long as that takes, and returns its status; 0 if there was none.
    """
    path = f"/predictions/{quote(model, safe='')}/{quote(version, safe='')}"

    def post(token: str) -> int:
        connection = _connection()
        try:
            connection.request("POST", path, b"{}", {"Content-Type": "application/json", header: token})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException) as error:
            log.info("no answer from the host to %s: %s", path, error)
            return 0
        finally:
            connection.close()

    return post


def _connection() -> http.client.HTTPConnection:
    address = urlsplit(os.environ.get("TS_INFERENCE_ADDRESS", INFERENCE))
    host = address.hostname or "127.0.0.1"
    host = EVERYWHERE.get(host, host)
    if address.scheme == "https":  # to ourselves: the certificate is for others
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(host, address.port or 443, context=context)
    return http.client.HTTPConnection(host, address.port or 80)
