"""The continuous handler, visit by visit: what each open request is sent; faults, delays, hang-ups.

The context is the host's own class, and so is the code that asks it what goes on the wire.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from loading import handler as loaded_handler
from real_server import ROOT
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.protocol.otf_message_handler import create_predict_response

from genserve.serving.hosts import held, torchserve
from genserve.serving.hosts.held import CONTENT_TYPE, HEADER, NOTICE
from genserve.serving.hosts.parcels import parcel
from genserve.serving.hosts.visits import SLICE_MAX_S

pytestmark = pytest.mark.alone
HELD = "held"


class Host:
    """Visits a handler with every request that is open, as TorchServe's front end does."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        self.bodies: dict[str, dict[str, Any]] = {}  # of the open requests
        self.headers: dict[str, dict[str, str]] = {}  # of those that send any
        metrics = MetricsCacheYamlImpl(str(ROOT / "metrics.yaml"))
        metrics.initialize_cache()
        self.context = Context("diffusion", "", {}, 64, None, "0.12.0", metrics=metrics)

    def visit(self) -> dict[str, Any]:
        """Return what each open request is sent: HELD, or (status, headers, body, None | more | last)."""
        ids = list(self.bodies)
        self.context.request_ids = dict(enumerate(ids))
        self.context.request_processor = [
            RequestProcessor({"explain": "False", **self.headers.get(key, {})}) for key in ids
        ]
        self.context.stopping_criteria = None
        data = [{"body": body} if body else {} for body in self.bodies.values()]
        bodies = self.handler.handle(data, self.context)
        left = self.context.request_ids
        create_predict_response(bodies, left, "Prediction success", 200, context=self.context)
        sent: dict[str, Any] = {}
        for i, key in enumerate(ids):
            if i not in left:
                sent[key] = HELD
                continue
            headers = self.context.get_response_headers(i)
            state = {None: None, "true": "more", "false": "last"}[headers.get("ts_stream_next")]
            sent[key] = (self.context.get_response_status(i)[0], headers, bodies[i], state)
            self.bodies[key] = {}  # the host sends a body once to a stream
            if state != "more":
                del self.bodies[key]
        return sent

    def until_answered(self, key: str) -> list[Any]:
        """Return everything that one request is sent."""
        sent = []
        deadline = time.monotonic() + 120  # a machine may be busy
        while key in self.bodies:
            assert time.monotonic() < deadline
            if (part := self.visit()[key]) != HELD:
                sent.append(part)
        return sent


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded_handler(tmp_path_factory.mktemp("model"), mode="continuous")


@pytest.fixture
def host(handler: Any) -> Iterator[Host]:
    host = Host(handler)
    yield host
    host.bodies.clear()
    host.context.request_ids = {}
    assert handler.handle([], host.context) == []  # everybody hung up
    assert not handler.service.open


def test_a_plain_request_is_held_and_then_answered_whole(host: Host) -> None:
    host.bodies["long"] = {"num_samples": 4, "steps": 300, "seed": 1}
    assert host.visit() == {"long": HELD}
    ((status, headers, body, state),) = host.until_answered("long")
    assert (status, state) == (200, None)
    assert body.startswith(b"\x89PNG")
    assert headers["X-NFE"] == "300"
    assert "sample;dur=" in headers["Server-Timing"]


def test_answers_that_are_too_long_together_go_with_several_visits(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchserve, "parcel", lambda replies: parcel(replies, 2000))
    monkeypatch.setattr(host.handler._slices, "enter", lambda: 60.0)
    monkeypatch.setattr(torchserve, "worth_a_visit", lambda n: n)
    for k in range(3):
        host.bodies[f"{k}"] = {"num_samples": 1, "steps": 1, "seed": k, "format": "npy", "scale": 2}
    visits = [host.visit() for _ in range(3)]
    assert [sum(sent != HELD for sent in visit.values()) for visit in visits] == [1, 1, 1]
    assert [visit[key][0] for visit in visits for key in visit if visit[key] != HELD] == [200] * 3
    assert not host.bodies


def test_newcomers_that_take_long_to_read_wait_for_the_next_visit(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchserve, "ADMIT_S", -1.0)  # over before it begins
    idle: list[Any] = []  # calls of what may wait for other workers
    monkeypatch.setattr(host.handler._anchors, "idle", lambda *arguments: idle.append(arguments))
    host.bodies |= {f"{k}": {"steps": 0} for k in range(2)}
    assert host.visit() == {"0": HELD, "1": HELD}
    assert not idle
    monkeypatch.undo()
    sent = host.visit()
    assert [status for status, *_ in sent.values()] == [400, 400]


def test_a_stream_begins_at_once_and_a_short_one_comes_whole(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.bodies["long"] = {"num_samples": 8, "steps": 400, "stream": True}
    status, headers, first, state = host.visit()["long"]
    assert (status, state) == (200, "more")
    assert first.startswith(b"--frame\r\n")
    assert headers["X-NFE"] == "400"
    sent = host.until_answered("long")
    assert [state for *_, state in sent] == ["more"] * (len(sent) - 1) + ["last"]
    assert sent[-1][2].endswith(b"\r\n--frame--\r\n")
    monkeypatch.setattr(host.handler._slices, "enter", lambda: 60.0)  # the visit lasts until it is over
    host.bodies["short"] = {"num_samples": 1, "steps": 1, "stream": "jsonl"}
    ((status, _, body, state),) = host.until_answered("short")
    assert (status, state) == (200, None)  # nothing was sent before, so it is an answer like any other
    assert json.loads(body)["sigma"] == 0


def test_newcomers_leave_first_and_bad_ones_at_once(host: Host) -> None:
    host.bodies["long"] = {"num_samples": 8, "steps": 500}
    assert host.visit()["long"] == HELD
    host.bodies |= {
        "bad": {"steps": 0},
        "describe": {"task": "describe"},
        "short": {"num_samples": 1, "steps": 2},
    }
    sent = host.visit()
    assert sent["bad"][0] == 400
    assert json.loads(sent["describe"][2])["mode"] == "continuous"
    assert sent["long"] == HELD
    host.until_answered("short")
    assert "long" in host.bodies


def test_a_request_that_is_not_done_in_time_is_a_504(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    service = host.handler.service
    host.bodies |= {
        "plain": {"num_samples": 8, "steps": 100},  # a slow machine must not refuse them at once
        "frames": {"num_samples": 8, "steps": 100, "stream": True},
        "lines": {"num_samples": 8, "steps": 100, "stream": "jsonl"},
    }
    sent: dict[str, list[Any]] = {key: [] for key in host.bodies}
    host.visit()  # they are let in
    monkeypatch.setattr(service, "running", replace(service.running, deadline_s=0.15))
    while host.bodies:
        for key, part in host.visit().items():
            if part != HELD:
                sent[key].append(part)
    ((status, _, body, state),) = sent["plain"]
    assert (status, state) == (504, None)
    assert "not done within 0.15 s" in json.loads(body)["message"]
    assert sent["frames"][-1][2:] == (b"--frame--\r\n", "last")  # its status was sent long ago
    assert "not done within" in json.loads(sent["lines"][-1][2])["message"]


def test_a_fault_of_the_model_answers_those_in_flight_and_nobody_later(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.bodies |= {"plain": {"steps": 500}, "lines": {"steps": 500, "stream": "jsonl"}}
    host.visit()
    with monkeypatch.context() as patch:

        def broken(*_: Any) -> Any:
            raise RuntimeError("secret")

        patch.setattr(host.handler.service.lanes, "_model", broken)
        ((status, _, body, _),) = host.until_answered("plain")
        assert status == 500
        assert b"secret" not in body
        if "lines" in host.bodies:
            host.until_answered("lines")
    host.bodies["next"] = {"num_samples": 1, "steps": 2}
    assert host.until_answered("next")[0][0] == 200


def test_who_is_gone_is_forgotten(host: Host) -> None:
    host.bodies |= {"gone": {"num_samples": 16, "steps": 1000, "stream": True}, "here": {"steps": 300}}
    host.visit()
    del host.bodies["gone"]
    host.visit()
    assert list(host.handler.service.open) == ["here"]


@pytest.fixture
def hold_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds that a watched request may take before it becomes a stream."""
    monkeypatch.setattr(held, "HOLD_S", 0.03)
    return 0.03


def late(sent: list[Any]) -> tuple[dict[str, Any], bytes]:
    """Return the head and the body of an answer that became a stream."""
    assert [state for *_, state in sent] == ["more"] * (len(sent) - 1) + ["last"]
    assert {status for status, *_ in sent} == {200}
    assert sent[0][1]["content-type"] == CONTENT_TYPE
    assert [body for _, _, body, _ in sent[:-1]] == [b"\n"] + [b""] * (len(sent) - 2)
    head, body = sent[-1][2].split(b"\n", 1)
    return json.loads(head), body


@pytest.mark.parametrize("more", [{}, {"format": "gif"}, {"format": "npy", "num_samples": 5}])
def test_a_plain_request_that_takes_long_becomes_a_stream_for_a_client_that_is_watched(
    host: Host, hold_s: float, more: dict[str, Any]
) -> None:
    fields = {"num_samples": 4, "steps": 100, "seed": 1, **more}
    host.bodies["plain"] = fields
    ((status, headers, body, _),) = host.until_answered("plain")
    host.bodies["watched"], host.headers["watched"] = fields, {HEADER: NOTICE}
    began = time.monotonic()
    while (part := host.visit()["watched"]) == HELD:
        pass
    assert time.monotonic() - began >= hold_s
    head, late_body = late([part, *host.until_answered("watched")])
    assert late_body == body
    assert (head["status"], head["content_type"]) == (status, headers["content-type"])
    assert head["headers"].keys() == headers.keys() & head["headers"].keys()
    assert {k: v for k, v in head["headers"].items() if k != "Server-Timing"}.items() <= headers.items()


def test_a_watched_request_that_is_quick_or_wrong_is_answered_plainly(host: Host) -> None:
    host.headers |= {key: {HEADER: NOTICE} for key in ["quick", "wrong", "other"]} | {"other": {HEADER: "1"}}
    host.bodies["wrong"] = {"steps": 0}
    assert host.visit()["wrong"][0] == 400
    host.bodies["quick"] = {"steps": 1, "num_samples": 1}
    ((status, _, body, state),) = host.until_answered("quick")
    assert (status, state, body[1:4]) == (200, None, b"PNG")
    host.bodies["other"] = {"steps": 50}
    assert [state for *_, state in host.until_answered("other")] == [None]


def test_a_watched_request_that_fails_late_says_so_in_its_head(
    host: Host, hold_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = host.handler.service
    host.headers["late"] = {HEADER: NOTICE}
    host.bodies["late"] = {"num_samples": 16, "steps": 400}
    host.visit()  # it is let in
    monkeypatch.setattr(service, "running", replace(service.running, deadline_s=5 * hold_s))
    head, body = late(host.until_answered("late"))
    assert (head["status"], head["content_type"]) == (504, "application/json")
    assert "not done within" in json.loads(body)["message"]


def test_a_watched_client_that_leaves_is_forgotten_with_all_requests_of_its_body(
    host: Host, hold_s: float
) -> None:
    host.headers |= {"gone": {HEADER: NOTICE}, "many": {HEADER: NOTICE}}
    host.bodies |= {
        "gone": {"num_samples": 4, "steps": 300},
        "many": {"instances": [{"num_samples": 2, "steps": 300}, {"num_samples": 2, "steps": 300}]},
        "other": {"num_samples": 4, "steps": 300},
    }
    sent = host.visit()
    while HELD in (sent["gone"], sent["many"]):
        sent = host.visit()
    assert sent["other"] == HELD
    del host.bodies["gone"], host.bodies["many"]
    host.visit()
    assert list(host.handler.service.open) == ["other"]


def test_a_visit_is_a_slice_of_time(host: Host) -> None:
    host.bodies["long"] = {"num_samples": 16, "steps": 1000}
    for _ in range(4):
        began = time.monotonic()
        host.visit()
        assert time.monotonic() - began < SLICE_MAX_S + 0.1
