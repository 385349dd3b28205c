"""A service without any host: keys, what it returns when, and what is left of a request that goes away."""

import json
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from one_gray import LONG, SHORT, SPEC, gray
from torch import Tensor

from genserve.drawing.client import worth_a_retry
from genserve.sampling.samplers import Query
from genserve.serving.fields import BadRequest
from genserve.serving.replies import Reply
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.service import Running, Service


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


def test_a_service_that_drains_refuses_newcomers_and_ends_what_is_open(service: Service) -> None:
    admitted(service, "open", SHORT)
    service.drain()
    for fields in (SHORT, {"task": "describe"}, {"steps": 0}):
        reply = service.admit("new", lambda fields=fields: (fields, False))
        assert reply is not None
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) >= 1
        assert "stopping" in json.loads(reply.body)["error"]
        assert worth_a_retry(reply.status, reply.body)
    assert service.open
    assert service.collect(math.inf)["open"].status == 200
    assert not service.open


def test_a_service_that_is_paused_evaluates_nothing_and_goes_on_later(service: Service) -> None:
    service.pause()
    admitted(service, "one", SHORT)
    assert service.collect(0.05) == {}
    assert service.lanes.totals.items == 0
    service.resume()
    assert service.collect(math.inf)["one"].status == 200


@pytest.fixture
def hasty() -> Iterator[Service]:
    """A service with a deadline of 0.1 s."""
    running = Running(device=torch.device("cpu"), budget=8, deadline_s=0.1)
    service = Service(SPEC, gray, DiffusionRequest, running)
    yield service
    service.close()


def test_deadlines_are_kept_while_nobody_collects(hasty: Service) -> None:
    admitted(hasty, "plain", LONG | {"num_samples": 16})
    admitted(hasty, "film", LONG | {"stream": "jsonl"})
    assert hasty.progress("film") is not None
    hasty.expire()
    assert set(hasty.lanes.open) == {"plain", "film"}
    time.sleep(0.1)
    watcher = threading.Thread(target=hasty.expire)
    watcher.start()
    watcher.join()
    assert not hasty.lanes.open
    evaluated = hasty.lanes.totals.items
    time.sleep(0.05)
    assert hasty.lanes.totals.items <= evaluated + 8  # one that was under way
    assert set(hasty.open) == {
        "plain",
        "film",
    }  # whoever comes is told; else their keys would be admitted again
    assert hasty.progress("film") is not None
    replies = hasty.collect(0.1)
    assert replies["plain"].status == 504
    assert "not done within" in json.loads(replies["film"].body)["message"]
    assert replies["film"].ends_stream
    assert not hasty.open


def test_an_answer_that_was_ready_in_time_is_given_however_late_it_is_collected(hasty: Service) -> None:
    admitted(hasty, "short", SHORT)
    while hasty.lanes.open:
        time.sleep(0.001)
    time.sleep(0.1)
    hasty.expire()
    assert hasty.collect(1)["short"].status == 200


def test_who_is_forgotten_after_the_deadline_is_forgotten(hasty: Service) -> None:
    admitted(hasty, "gone", LONG)
    time.sleep(0.1)
    hasty.expire()
    hasty.forget("gone")
    assert not hasty.open
    assert hasty.collect(1) == {}


def test_a_watcher_never_disturbs_who_admits_and_collects(hasty: Service) -> None:
    """Every request gets one reply, with a thread that expires and pauses all the time."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            hasty.expire()
            hasty.pause()
            hasty.resume()

    watcher = threading.Thread(target=watch)
    watcher.start()
    statuses: dict[str, int] = {}
    try:
        for k in range(150):
            fields = LONG if k % 10 == 0 else SHORT | {"seed": k}
            if refused := hasty.admit(str(k), lambda fields=fields: (fields, False)):
                statuses[str(k)] = refused.status
            if k % 15 == 0:
                time.sleep(0.02)
            statuses |= {str(key): reply.status for key, reply in hasty.collect(0.001).items()}
        while hasty.open:
            statuses |= {str(key): reply.status for key, reply in hasty.collect(1).items()}
    finally:
        over.set()
        watcher.join()
    assert len(statuses) == 150
    assert set(statuses.values()) <= {200, 503, 504}
    assert list(statuses.values()).count(200) >= 100


@pytest.fixture
def crowded() -> Iterator[Service]:
    """A service of 12 places whose model takes 2 ms for a batch of 8."""

    def slow(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        time.sleep(0.002)
        return gray(x, sigma, y)

    running = Running(device=torch.device("cpu"), budget=8, places=12)
    service = Service(SPEC, slow, DiffusionRequest, running)
    yield service
    service.close()


def counted(service: Service, name: str) -> float:
    return {name: value for name, value, _ in service.meter.growth()}[f"genserve_{name}_total"]


def test_a_small_request_comes_in_and_ends_while_the_place_is_full_of_big_ones(crowded: Service) -> None:
    big = {"num_samples": 16, "steps": 1000, "format": "json"}
    replies = [crowded.admit(k, lambda: (big, False)) for k in range(12)]
    refused = [reply for reply in replies if reply is not None]
    assert replies[:8] == [None] * 8
    assert [reply.status for reply in refused] == [503] * 4
    assert all("of this size at most 8 may be" in json.loads(reply.body)["error"] for reply in refused)
    began = time.monotonic()
    admitted(crowded, "small", SHORT)
    assert list(crowded.collect(20, enough=1)) == ["small"]
    assert time.monotonic() - began < 2
    assert counted(crowded, "refused") == 4


def test_who_could_not_end_in_time_is_told_when_to_come_again(crowded: Service) -> None:
    big = {"num_samples": 16, "steps": 1000}
    query = Query(torch.zeros(8, 1, 4, 4), torch.ones(8), torch.zeros(8, dtype=torch.long))
    crowded.lanes.measure(query, 0.3)  # some 3,000 evaluations a second, and 16,000 in each request
    replies: list[Reply | None] = []
    while not replies or replies[-1] is None:
        replies.append(crowded.admit(len(replies), lambda: (big, False)))
    assert len(crowded.open) >= 1
    reply = replies[-1]
    assert reply.status == 503
    assert 1 <= int(reply.headers["Retry-After"]) <= 120
    admitted(crowded, "small", SHORT)
    replies_now = crowded.collect(10, enough=1)
    assert replies_now["small"].status == 200


def test_who_asks_too_much_for_this_machine_is_told_so_unless_it_is_idle(hasty: Service) -> None:
    query = Query(torch.zeros(8, 1, 4, 4), torch.ones(8), torch.zeros(8, dtype=torch.long))
    hasty.lanes.measure(query, 0.3)
    admitted(hasty, "first", {"num_samples": 64, "steps": 256})
    reply = hasty.admit("second", lambda: ({"num_samples": 64, "steps": 256}, False))
    assert reply is not None
    assert reply.status == 503
    assert "even alone, of 0.1 allowed" in json.loads(reply.body)["error"]
    assert hasty.collect(10)["first"].status == 504
