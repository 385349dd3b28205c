"""Several requests under one key: what their one answer is in KServe's two protocols, and what it costs."""

import base64
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joined_bodies import SEVEN, answered, begin, content, running
from loading import service as shipped
from one_gray import LONG, SHORT, SPEC, gray
from tensors_sent import tensor
from torch import Tensor

from genserve.serving.joined import JoiningService
from genserve.serving.limits import PIXELS_MAX, SAMPLES_MAX, WORK_MAX
from genserve.serving.replies import Reply
from genserve.serving.requests.diffusion import DiffusionRequest


@pytest.fixture
def service() -> Iterator[JoiningService]:
    service = JoiningService(SPEC, gray, DiffusionRequest, running())
    yield service
    service.close()


def events(service: JoiningService) -> dict[str, float]:
    return {name: value for name, value, _ in service.meter.growth() if value}


def test_predictions_are_what_each_instance_gets_alone_in_their_order(service: JoiningService) -> None:
    instances = [SHORT | {"steps": 40}, SHORT, {"task": "describe"}, SHORT | {"seed": 9}]
    predictions = content(answered(service, {"instances": instances}))
    assert list(predictions) == ["predictions"]
    alone = [content(reply) for reply in service.answers(instances)]
    assert predictions["predictions"] == alone
    assert [one.get("seed") for one in alone] == [2, 2, None, 9]


def test_instances_share_evaluations(service: JoiningService) -> None:
    fields = {"num_samples": 1, "steps": 200, "sampler": "ddim"}
    assert answered(service, {"instances": [fields | {"seed": k} for k in range(8)]}).status == 200
    assert service.lanes.totals.items == 8 * 200
    assert service.lanes.totals.batches < 400  # 200 if all came at once


def test_a_mistake_in_an_instance_stands_in_its_place(service: JoiningService) -> None:
    instances = [SHORT, {"steps": 0}, 7, {"stream": True}, {"data": "{"}, SHORT]
    reply = answered(service, {"instances": instances})
    assert reply.status == 200
    first, *wrong, last = content(reply)["predictions"]
    assert first == last == content(service.answers([SHORT])[0])
    assert [one["field"] for one in wrong] == ["steps", "instances", "stream", "data"]
    assert all(isinstance(one["error"], str) and one["status"] == 400 for one in wrong)


def test_if_no_instance_is_answered_the_status_says_so(service: JoiningService) -> None:
    reply = answered(service, {"instances": [{"steps": 0}, {"seed": -1}]})
    assert (reply.status, content(reply)["field"]) == (400, "steps")
    assert content(reply)["error"] == "steps: out of range (allowed: 1 to 1000)"
    assert [one["field"] for one in content(reply)["predictions"]] == ["steps", "seed"]
    alone = answered(service, {"instances": [{"steps": 0}]})
    assert (alone.status, list(content(alone))) == (400, ["error", "field", "message", "allowed"])


@pytest.mark.parametrize("name", ["png", "npy", "zip", "filmstrip", "gif"])
def test_another_format_comes_as_a_file_in_base64(service: JoiningService, name: str) -> None:
    fields = SHORT | {"format": name}
    (prediction,) = content(answered(service, {"instances": [fields]}))["predictions"]
    (alone,) = service.answers([fields])
    assert base64.b64decode(prediction["b64"]) == alone.body
    assert prediction["content_type"] == alone.content_type
    assert prediction["headers"]["X-Seed"] == "2"


def test_explanations_are_called_so(tmp_path: Path) -> None:
    energy = shipped(tmp_path, "energy-mnist", precision="fp32")
    try:
        instances = [{"images": {"b64": SEVEN}}, {"data": SEVEN}, {"task": "score", "images": SEVEN}]
        answer = content(answered(energy, {"instances": instances}, explain="True"))
        assert list(answer) == ["explanations"]
        first, second, wrong = answer["explanations"]
        assert first == second
        assert first["settings"]["task"] == "explain"
        assert wrong["field"] == "task"
    finally:
        energy.close()


def test_a_late_instance_costs_the_others_nothing() -> None:

    def slow(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        time.sleep(0.005)
        return gray(x, sigma, y)

    service = JoiningService(SPEC, slow, DiffusionRequest, running(deadline_s=1.0))
    try:
        first, late = content(answered(service, {"instances": [SHORT, LONG | {"num_samples": 16}]}))[
            "predictions"
        ]
        assert first["seed"] == SHORT["seed"]
        assert (late["status"], late["field"]) == (504, "")
        assert answered(service, {"instances": [LONG | {"num_samples": 16}]}).status == 504
    finally:
        service.close()


def test_the_requests_of_a_body_are_limited_together(service: JoiningService) -> None:
    fair = {"num_samples": 16, "steps": WORK_MAX // 32, "sampler": "ddim"}
    assert begin(service, {"instances": [fair, fair]}) is None
    service.forget("all")
    for body in (
        {"instances": [fair, fair, {"num_samples": 1, "steps": 1}]},
        {
            "inputs": [
                tensor("seed", [1, 2, 3]),
                tensor("num_samples", [16]),
                tensor("steps", [WORK_MAX // 32]),
            ]
        },
    ):
        reply = begin(service, body)
        assert reply is not None
        assert (reply.status, content(reply)["field"]) == (400, next(iter(body)))
        assert f"{WORK_MAX}" in content(reply)["message"]
        assert not service.open
    large = {"num_samples": 64, "scale": 16, "steps": 1, "format": "npy"}  # 4 x 4 pixels
    n = PIXELS_MAX // (64 * 16 * 16 * 16)
    assert 1 < n + 1 <= SAMPLES_MAX
    for count, allowed in ((n, True), (n + 1, False)):
        reply = begin(service, {"instances": [large] * count})
        assert (reply is None) == allowed
        if allowed:
            service.forget("all")
    inputs = [tensor(name, [v], "BYTES" if isinstance(v, str) else "INT64") for name, v in large.items()]
    reply = begin(service, {"inputs": [*inputs, tensor("seed", list(range(n)))]})
    assert reply is not None
    assert f"more than {PIXELS_MAX // 2} values" in content(reply)["message"]


def test_the_largest_answer_in_tensors_is_below_the_host_s_limit(service: JoiningService) -> None:
    """A longer one would stop the worker."""
    limit = int(
        (Path(__file__).parents[2] / "config.properties")
        .read_text()
        .split("max_response_size=")[1]
        .split()[0]
    )
    n = PIXELS_MAX // (64 * 16 * 16 * 16) // 2
    large = {"num_samples": 64, "scale": 16, "steps": 1, "format": "npy", "sampler": "ddim"}
    inputs = [tensor(name, [v], "BYTES" if isinstance(v, str) else "INT64") for name, v in large.items()]
    reply = answered(service, {"inputs": [*inputs, tensor("seed", list(range(n)))]})
    assert reply.status == 200
    values = n * 64 * 16 * 16 * 16
    assert len(reply.body) <= 4 * values + 1000 < limit


def test_a_key_of_several_is_one_open_request_until_its_answer(service: JoiningService) -> None:
    assert begin(service, {"instances": [LONG, LONG | {"seed": 3}]}, "several") is None
    assert begin(service, SHORT, "one") is None
    assert set(service.open) == {"several", "one"}
    assert service.progress("several") is None
    assert list(service.collect(60, enough=1)) == ["one"]
    assert set(service.open) == {"several"}
    service.forget("several")
    assert not service.open
    assert not len(service.lanes._engine)
    assert events(service)["genserve_cancelled_total"] == 2
    assert begin(service, {"instances": [SHORT]}, "several") is None  # the key is free
    assert service.collect(math.inf)["several"].status == 200


def test_a_server_that_takes_no_more_refuses_the_body(
    service: JoiningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes later of it is not computed, and the client sees what to wait for."""
    busy = Reply(b'{"error": "busy"}', "application/json", 503, {"Retry-After": "3"})
    admit = JoiningService.__mro__[1].admit  # type: ignore[attr-defined]

    def full(self: Any, key: Any, *rest: Any) -> Reply | None:
        return busy if key.number == 1 else admit(self, key, *rest)

    monkeypatch.setattr(JoiningService.__mro__[1], "admit", full)
    assert begin(service, {"instances": [SHORT, SHORT, SHORT]}) is busy
    assert not service.open
    assert not len(service.lanes._engine)


def test_what_a_body_costs_is_counted_for_each_of_its_requests(service: JoiningService) -> None:
    answered(service, {"instances": [SHORT, {"steps": 0}, SHORT]})
    counted = events(service)
    assert (counted["genserve_answered_total"], counted["genserve_rejected_total"]) == (2, 1)
