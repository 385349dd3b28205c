"""A service without any host: keys, what it returns when, and what is left of a request that goes away."""

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from genserve.runs.contract import Spec
from genserve.serving.fields import BadRequest
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.service import Running, Service

SPEC = Spec(
    name="gray",
    family="diffusion",
    shape=(1, 4, 4),
    classes=("dark", "light"),
    sigma_min=0.01,
    sigma_max=20.0,
)
LONG = {"num_samples": 8, "steps": 900, "sampler": "ddim", "seed": 1}
SHORT = {"num_samples": 1, "steps": 2, "seed": 2, "format": "json"}


def gray(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """E[x_0 | x_t] of images that are one gray, by class."""
    mean = torch.tensor([-0.5, 0.5, 0.0])[y].view(-1, 1, 1, 1)
    return mean + 0.01 / (0.01 + sigma.view(-1, 1, 1, 1) ** 2) * (x - mean)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(SPEC, gray, DiffusionRequest, Running(device=torch.device("cpu"), budget=8))
    yield service
    service.close()


def admitted(service: Service, key: str, fields: dict[str, Any]) -> None:
    assert service.admit(key, lambda: (fields, False)) is None


def test_replies_come_by_key_whenever_they_are_ready(service: Service) -> None:
    admitted(service, "long", LONG)
    admitted(service, "short", SHORT)
    assert set(service.open) == {"long", "short"}
    assert service.progress("long") is None  # it is no stream
    assert list(service.collect(60, enough=1)) == ["short"]
    assert set(service.open) == {"long"}
    assert service.collect(math.inf)["long"].status == 200
    assert not service.open
    assert service.collect(60) == {}  # at once: nothing is open


def test_collecting_ends_with_its_time(service: Service) -> None:
    admitted(service, "long", LONG)
    start = time.monotonic()
    assert service.collect(0.0) == {}
    assert time.monotonic() - start < 1
    assert set(service.open) == {"long"}


def test_a_request_that_is_forgotten_gets_no_reply_and_leaves_its_key_free(service: Service) -> None:
    admitted(service, "one", LONG)
    service.forget("one")
    assert not service.open
    admitted(service, "one", SHORT)
    (reply,) = service.collect(math.inf).values()
    assert json.loads(reply.body)["seed"] == SHORT["seed"]


def test_what_cannot_be_read_or_streamed_is_refused_by_name(service: Service) -> None:
    def unreadable() -> Any:
        raise BadRequest("body", "not readable", "something else")

    reply = service.admit("a", unreadable)
    assert reply is not None
    assert (reply.status, json.loads(reply.body)["field"]) == (400, "body")
    reply = service.admit("b", lambda: ({"stream": True}, False), ("no place for frames", "false"))
    assert reply is not None
    assert json.loads(reply.body)["error"] == "stream: no place for frames (allowed: false)"
    assert not service.open


def test_a_fault_while_reading_is_a_500_and_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    reply = service.admit("a", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert reply is not None
    assert reply.status == 500
    assert b"division" not in reply.body
    assert "ZeroDivisionError" in caplog.text


def test_a_stream_brings_its_frames_on_the_way_and_the_picture_last(service: Service) -> None:
    admitted(service, "film", LONG | {"stream": "jsonl", "frames": 5})
    lines: list[Any] = []
    while service.open:
        if reply := service.collect(0.02).get("film"):
            assert reply.ends_stream == bool(lines)
            lines += map(json.loads, reply.body.splitlines())
        elif progress := service.progress("film"):
            assert progress.content_type == "application/jsonl"
            lines += map(json.loads, progress.body.splitlines())
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert (len(lines), steps[-1], lines[-1]["sigma"]) == (5, 900, 0.0)
    assert [line.get("seed") for line in lines] == [None] * 4 + [1]  # the last line lists the images


def test_answers_come_in_the_order_of_their_requests(service: Service) -> None:
    replies = service.answers([SHORT | {"steps": 50}, {"steps": 0}, {"task": "describe"}, SHORT])
    assert [reply.status for reply in replies] == [200, 400, 200, 200]
    assert [json.loads(reply.body).get("nfe") for reply in replies] == [50, None, None, 2]
    assert json.loads(replies[2].body)["name"] == "gray"


def test_a_request_past_its_deadline_is_a_504() -> None:
    running = Running(device=torch.device("cpu"), budget=8, deadline_s=0.05)
    service = Service(SPEC, gray, DiffusionRequest, running)
    try:
        (reply,) = service.answers([LONG | {"num_samples": 16}])
    finally:
        service.close()
    assert reply.status == 504
    assert "not done within 0.05 s" in json.loads(reply.body)["message"]
