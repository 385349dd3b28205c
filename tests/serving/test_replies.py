"""Replies: the same pixels in every format, and headers that a host can send."""

import base64
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genserve.images import to_pixels
from genserve.serving.fields import BadRequest
from genserve.serving.limits import ANSWER_MAX
from genserve.serving.orders import Order
from genserve.serving.picture_replies import answer
from genserve.serving.replies import Reply, failure, refusal, sendable, too_late

X_0 = torch.linspace(-1, 1, 2 * 3 * 4 * 5).view(2, 3, 4, 5)  # two colour pictures
PIXELS = to_pixels(X_0)
FACTS: dict[str, Any] = {"sampler": "heun", "steps": 4, "schedule": "karras", "eta": None}
NOTES = {"energy": [1.5, -2.0], "rank_before": [0.25, None]}


def reply(kind: str, **more: Any) -> Reply:
    order = Order(task="sample", n=2, seed=9, first_index=5, label=(1, 0), format=kind, **more)
    return answer(order, FACTS, X_0, 7, None, NOTES)


def test_numbers_and_files_hold_the_pixels() -> None:
    assert np.array_equal(np.load(io.BytesIO(reply("npy").body)), PIXELS)
    with zipfile.ZipFile(io.BytesIO(reply("zip").body)) as archive:
        assert archive.namelist() == ["00006.png", "00007.png"]  # by index, from 1
        for name, pixels in zip(archive.namelist(), PIXELS, strict=True):
            assert np.array_equal(np.asarray(Image.open(archive.open(name))), pixels)


def test_a_grid_is_as_wide_as_it_was_asked_to_be() -> None:
    for columns, shape in ((None, (4, 12, 3)), (1, (10, 5, 3)), (2, (4, 12, 3))):
        sheet = np.asarray(Image.open(io.BytesIO(reply("png", columns=columns).body)))
        assert sheet.shape == shape
        assert np.array_equal(sheet[:4, :5], PIXELS[0])


def test_json_lists_each_image_with_what_is_known_of_it() -> None:
    listing = json.loads(reply("json").body)
    first, second = listing["images"]
    assert (first["index"], first["seed"], first["label"], first["energy"]) == (5, 9, 1, 1.5)
    assert (second["index"], second["label"], second["rank_before"]) == (6, 0, None)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(second["png"])))), PIXELS[1])
    assert (listing["seed"], listing["nfe"], listing["settings"]) == (9, 7, FACTS)
    assert "png" not in json.loads(reply("json", pictured=False).body)["images"][0]


def test_headers_are_text_and_leave_out_what_does_not_apply() -> None:
    headers = reply("png").headers
    assert headers == {
        "X-Seed": "9", "X-NFE": "7", "X-Sampler": "heun", "X-Steps": "4", "X-Schedule": "karras",
        "X-Energy": "1.5,-2.0", "X-Rank-Before": "0.25,None",
    }  # fmt: skip


def test_pictures_that_are_not_finite_are_an_error() -> None:
    order = Order(task="sample", n=2, seed=9)
    with pytest.raises(ValueError, match="NaN or infinity"):
        answer(order, FACTS, X_0 / 0, 7, None, {})


def test_an_answer_that_is_too_long_for_the_host_is_refused() -> None:
    assert sendable(Reply(bytes(ANSWER_MAX), "image/png")).status == 200
    with pytest.raises(BadRequest, match="the answer has 15728641 bytes"):
        sendable(Reply(bytes(ANSWER_MAX + 1), "image/png"))


def test_errors_name_what_a_client_can_change() -> None:
    error = refusal(BadRequest("steps", "out of range", "1 to 1000"))
    assert (error.status, json.loads(error.body)["allowed"]) == (400, "1 to 1000")
    assert (failure().status, json.loads(failure().body)["field"]) == (500, "")
    late = too_late(2.5)
    assert (late.status, json.loads(late.body)["message"]) == (504, "not done within 2.5 s")
