"""What a client gets: one answer of any kind, or why there is none."""

import json
from dataclasses import dataclass, field

from genserve.serving.fields import BadRequest, problem
from genserve.serving.limits import ANSWER_MAX

JSON = "application/json"


@dataclass
class Reply:
    """One answer, ready to be sent. Headers hold numbers and our own words, never a client's text."""

    body: bytes
    content_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ends_stream: bool = False  # the client has got the beginning already


def refusal(error: BadRequest) -> Reply:
    """Return a client's mistake as its answer."""
    return Reply(error.body(), JSON, error.status)


def sendable(reply: Reply) -> Reply:
    """Return an answer that the host can take.

    Raises:
        BadRequest: it is too long.
    """
    if len(reply.body) > ANSWER_MAX:
        message = f"the answer has {len(reply.body)} bytes"
        raise BadRequest("body", message, f"requests whose answer has at most {ANSWER_MAX}")
    return reply


def failure() -> Reply:
    """Return a mistake of ours; a client learns no more of it."""
    return _error(500, "sampling failed; the server's log says why", "")


def too_late(deadline_s: float) -> Reply:
    """Return the answer to a request that was not done in time."""
    return _error(504, f"not done within {deadline_s:g} s", "a smaller request, or a quieter time")


def not_now(message: str, seconds: int) -> Reply:
    """Return the answer to a request that may come again later: it has no `field`, so that a client tries.

    Args:
        seconds: until it is worth a try.
    """
    body = json.dumps({"error": message, "message": message}).encode()
    return Reply(body, JSON, 503, {"Retry-After": str(seconds)})


def _error(status: int, message: str, allowed: str) -> Reply:
    return Reply(problem("", message, allowed), JSON, status)
