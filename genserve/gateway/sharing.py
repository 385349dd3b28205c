"""The Redis that several gateways share: can it be used at all?"""

import socket
from importlib.util import find_spec
from urllib.parse import urlsplit

SCHEMES = ("redis", "rediss")  # that both the limits and the queue of jobs know
PORT = 6379
ANSWER_S = 5.0


def check_redis(url: str) -> None:
    """Check what a gateway needs to share a Redis, before it starts: later, limits would just not be kept.

    Raises:
        ValueError: the URL is none of a Redis, its package is missing, or nothing listens there.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORT
    except ValueError as error:
        raise ValueError(f"--redis: {error}") from None
    if parts.scheme not in SCHEMES or not host:
        raise ValueError("--redis must be redis://HOST:PORT, or rediss://HOST:PORT for TLS")
    if find_spec("redis") is None:
        raise ValueError("--redis needs a package that is not installed: pip install redis")
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except OSError as error:  # its text alone: the URL may have a password
        raise ValueError(f"--redis: {host}:{port} does not answer ({error}): is Redis up?") from error
