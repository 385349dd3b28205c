"""Bodies of several requests, sent to a service that takes them, and what it answers."""

import base64
import io
import json
import math
from typing import Any

import numpy as np
import torch
from real_server import ROOT

from genserve.serving.joined import JoiningService
from genserve.serving.replies import Reply
from genserve.serving.rows import fields_of
from genserve.serving.service import Running, Service

SEVEN = base64.b64encode((ROOT / "docs/images/seven.png").read_bytes()).decode()


def running(**more: Any) -> Running:
    return Running(device=torch.device("cpu"), budget=8, name="served", version="2.0", **more)


def begin(service: JoiningService, body: Any, key: str = "all", **headers: str) -> Reply | None:
    return service.admit(key, lambda: fields_of({"body": body}, headers, service.kind))


def answered(service: JoiningService, body: Any, **headers: str) -> Reply:
    return begin(service, body, **headers) or service.collect(math.inf)["all"]


def content(reply: Reply) -> Any:
    assert reply.content_type == "application/json"
    return json.loads(reply.body)


def one(service: Service, **fields: Any) -> Reply:
    """Return the answer to one request alone."""
    (reply,) = service.answers([fields])
    return reply


def rows(service: Service, **fields: Any) -> list[dict[str, Any]]:
    """Return what an answer in JSON says of each item."""
    reply = one(service, **fields)
    assert reply.status == 200, reply.body
    items: list[dict[str, Any]] = content(reply)[service.kind.items]
    return items


def array(reply: Reply) -> np.ndarray[Any, Any]:
    """Return the pictures of an answer as npy."""
    assert (reply.status, reply.content_type) == (200, "application/x-npy"), reply.body
    pixels: np.ndarray[Any, Any] = np.load(io.BytesIO(reply.body))
    return pixels


def close(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Return whether pixels are the same but for rounding."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b.astype(int)).max()) <= 1


def refused(reply: Reply, name: str) -> None:
    """Check that an answer is the refusal of a field, by name, and says what is allowed."""
    error = content(reply)
    assert (reply.status, error["field"]) == (400, name), error
    assert error["allowed"]
    assert error["message"]
