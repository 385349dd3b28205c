"""KServe's first protocol: `{"instances": [{...}, ...]}` in, `{"predictions": [...]}` out, in the same order.

An instance has the fields of one request, and its prediction is what that request gets as `format=json`. In
another format it is a JSON object with the file in base64. A mistake in one instance is an entry in its
place, `{"error", "field", "message", "allowed", "status"}`, and the others are answered: the status is 200 if
one of them is. If none is, it is the status of the first one.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from genserve.serving.fields import BadRequest
from genserve.serving.limits import SAMPLES_MAX
from genserve.serving.replies import Reply

INSTANCES_MAX = SAMPLES_MAX  # requests in one body
EXAMPLE = '[{"seed": 1}, {"seed": 2}]'


@dataclass(frozen=True)
class Instances:
    """The requests in `instances`.

    Args:
        reads: each returns the fields of a request, or raises its BadRequest.
        answer: the key of the list of answers.
    """

    reads: Sequence[Callable[[], dict[str, Any]]]
    answer: str = "predictions"

    name = "instances"
    all_or_none = False  # a mistake in one concerns no other

    def joined(self, replies: dict[int, Reply], model: str, version: str) -> Reply:
        """Return the one answer; `model` and `version` stand in no answer of this protocol.

        Args:
            replies: to each request by its number, in their order.
        """
        failed = [reply for reply in replies.values() if reply.status != 200]
        if len(failed) == len(replies) == 1:
            return failed[0]
        entries = b", ".join(map(_prediction, replies.values()))
        body = f'"{self.answer}": ['.encode() + entries + b"]}"
        if len(failed) < len(replies):
            return Reply(b"{" + body, "application/json")
        first = json.dumps(json.loads(failed[0].body)).encode()
        return Reply(first[:-1] + b", " + body, "application/json", failed[0].status, failed[0].headers)


def listed(value: Any) -> list[Any]:
    """Return the instances in the value of `instances`.

    Raises:
        BadRequest: it is no list, or an empty or long one.
    """
    if not isinstance(value, list):
        raise BadRequest("instances", "not a list", EXAMPLE)
    if not 1 <= len(value) <= INSTANCES_MAX:
        raise BadRequest("instances", f"{len(value)} instances", f"1 to {INSTANCES_MAX}")
    return value


def without_b64(instance: Any) -> dict[str, Any]:
    """Return an instance's fields, with `{"b64": TEXT}`, the protocol's way to write bytes, as the text.

    Raises:
        BadRequest: it is no JSON object.
    """
    if not isinstance(instance, dict):
        raise BadRequest("instances", "the instance is not a JSON object", EXAMPLE)
    return {
        name: value["b64"] if isinstance(value, dict) and list(value) == ["b64"] else value
        for name, value in instance.items()
    }


def fit_for_json(envelope: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return a request's fields, with the format that a JSON answer has if none is given.

    Args:
        envelope: the key that the request stood under.

    Raises:
        BadRequest: it asks for a stream.
    """
    if fields.get("stream") not in (None, False):
        allowed = f"false, or the fields without {envelope}"
        raise BadRequest("stream", f"{envelope} get one answer, not a stream", allowed)
    if fields.get("format") is not None or fields.get("task") == "describe":
        return fields
    return fields | {"format": "json"}


def _prediction(reply: Reply) -> bytes:
    """Return the JSON of one answer."""
    if reply.status != 200:
        return json.dumps(json.loads(reply.body) | {"status": reply.status}).encode()
    if reply.content_type == "application/json":
        return reply.body
    file = base64.b64encode(reply.body).decode()
    return json.dumps({"b64": file, "content_type": reply.content_type, "headers": reply.headers}).encode()
