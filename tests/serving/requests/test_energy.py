"""What an energy refuses, by field, and what a failure says and does not say."""

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hand_drawn import MASK, SEVEN, STATIC, ask, digit, energies
from PIL import Image

from genserve.serving.requests.energy import EnergyRequest
from genserve.serving.rows import fields_of
from genserve.serving.service import Service

BAD: list[tuple[dict[str, Any], str]] = [
    ({"task": "score"}, "images"),
    ({"task": "sample", "images": SEVEN}, "images"),
    ({"images": []}, "images"),
    ({"images": [SEVEN] * 65}, "images"),
    ({"images": "not base64!"}, "images"),
    ({"images": base64.b64encode(b"no picture").decode()}, "images"),
    ({"images": SEVEN[: len(SEVEN) // 2 // 4 * 4]}, "images"),
    ({"images": 7}, "images"),
    ({"images": SEVEN, "num_samples": 2}, "num_samples"),
    ({"images": [SEVEN, SEVEN], "label": [1]}, "label"),
    ({"images": SEVEN, "mask": MASK}, "mask"),
    ({"images": SEVEN, "steps": 4}, "steps"),
    ({"images": SEVEN, "format": "png"}, "format"),
    ({"images": SEVEN, "stream": True}, "stream"),
    ({"images": SEVEN, "sigma": 50}, "sigma"),
    ({"images": SEVEN, "sigma": 0}, "sigma"),
    ({"sigma": 1}, "sigma"),
    ({"sampler": "mala"}, "sampler"),
    ({"task": "refine", "images": SEVEN, "sampler": "ddim"}, "sampler"),
    ({"task": "restore", "images": SEVEN, "sampler": "langevin"}, "sampler"),
    ({"task": "restore", "images": SEVEN, "mask": "x"}, "mask"),
    ({"task": "refine", "images": SEVEN, "schedule": "karras"}, "schedule"),
    ({"step_size": 0.1}, "step_size"),
    ({"sampler": "langevin", "step_size": 0}, "step_size"),
    ({"sampler": "langevin", "noise": -1}, "noise"),
    ({"sampler": "langevin", "eta": 1}, "eta"),
    ({"sampler": "heun", "noise": 1}, "noise"),
    ({"task": "refine", "images": SEVEN, "sampler": "mala", "noise": 1}, "noise"),
    ({"task": "dream"}, "task"),
    ({"task": "describe", "seed": 1}, "seed"),
    ({"guidance": 2}, "guidance"),
    ({"num_samples": 64, "steps": 1000, "sampler": "langevin"}, "steps"),
    ({"task": "explain", "images": SEVEN, "format": "gif"}, "format"),
]


@pytest.mark.parametrize(("fields", "named"), BAD)
def test_what_is_wrong_is_named(energy: Service, fields: dict[str, Any], named: str) -> None:
    (reply,) = ask(energy, fields)
    assert reply.status == 400, reply.body
    error = json.loads(reply.body)
    assert error["field"] == named
    assert error["message"]
    assert error["allowed"]


def test_an_energy_without_noise_levels_refuses_what_needs_them(classic: Service) -> None:
    for fields, named in (
        ({"sampler": "ddim"}, "sampler"),
        ({"schedule": "karras"}, "schedule"),
        ({"label": 3}, "label"),
        ({"task": "restore", "images": SEVEN}, "mask"),
        ({"task": "restore", "images": SEVEN, "mask": MASK, "sampler": "mala"}, "sampler"),
        ({"images": SEVEN, "sigma": 0.5}, "sigma"),
    ):
        (reply,) = ask(classic, fields)
        assert (reply.status, json.loads(reply.body)["field"]) == (400, named)


def test_a_picture_of_another_size_or_kind_is_refused_and_others_are_answered(energy: Service) -> None:
    def encoded(picture: Image.Image, kind: str = "PNG") -> str:
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        return base64.b64encode(buffer.getvalue()).decode()

    large = Image.new("L", (29, 28))
    bomb = Image.new("1", (20_000, 20_000))
    glass = Image.new("RGBA", (28, 28), (255, 255, 255, 128))
    colour = Image.fromarray(np.stack([digit()] * 3, axis=2))
    wrong = [{"images": encoded(p)} for p in (large, bomb, glass)]
    *refused, good, jpeg, mine = ask(
        energy,
        *wrong,
        {"images": encoded(colour)},
        {"images": "data:image/jpeg;base64," + encoded(Image.fromarray(digit()), "JPEG")},
        {"images": SEVEN},
    )
    for reply, message in zip(refused, ("29 x 28", "too many pixels", "transparent"), strict=True):
        error = json.loads(reply.body)
        assert (reply.status, error["field"]) == (400, "images")
        assert message in error["message"]
        assert "28 x 28 pixels, gray" in error["allowed"]
    assert energies(good) == energies(mine)  # gray pictures with three channels are the same pictures
    assert energies(jpeg) == pytest.approx(energies(mine), rel=0.5)


def test_a_failed_request_is_logged_without_the_client_s_pictures(
    energy: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin = EnergyRequest.begin

    def diverging(*arguments: Any) -> Any:
        x_0 = yield from begin(*arguments)
        return x_0 * float("nan")

    monkeypatch.setattr(EnergyRequest, "begin", staticmethod(diverging))
    (reply,) = ask(energy, {"task": "restore", "images": SEVEN, "mask": MASK, "seed": 13, "steps": 3})
    assert reply.status == 500
    assert json.loads(reply.body)["field"] == ""
    assert "task=restore seed=13" in caplog.text
    assert "'steps': 3" in caplog.text
    for picture in (SEVEN, MASK):
        assert picture[:12] not in caplog.text


def test_null_beside_pictures_is_not_given(energy: Service) -> None:
    nothing = {name: None for name in EnergyRequest.model_fields if name != "images"}
    plain, with_nulls = ask(energy, {"images": SEVEN}, {"images": SEVEN, **nothing})
    assert with_nulls.status == 200, with_nulls.body
    assert with_nulls.body == plain.body


@pytest.mark.parametrize("task", ["score", "refine", "restore", "explain"])
def test_two_pictures_in_one_text_are_refused_in_json_and_read_in_a_form(energy: Service, task: str) -> None:
    fields = {"task": task, "images": f"{SEVEN},{STATIC}"}
    (refused,) = ask(energy, fields)
    assert (refused.status, json.loads(refused.body)["field"]) == (400, "images")
    assert SEVEN[:12].encode() not in refused.body
    form = {name: value.encode() for name, value in fields.items()} | {"seed": b"1", "steps": b"1"}
    if task in ("score", "explain"):
        del form["seed"], form["steps"]
    assert energy.admit("form", lambda: fields_of(form, {}, EnergyRequest)) is None
    taken = energy.collect(math.inf)["form"]
    assert taken.status == 200, taken.body
    assert len(energies(taken)) == 2
