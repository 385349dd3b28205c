"""Pictures sent to a diffusion model, and two seeds: what is taken, what is refused, what comes out."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import ByHand, solved
from loading import service
from PIL import Image
from real_server import ROOT

from genserve import images
from genserve.runs.contract import Spec
from genserve.sampling.noise import Streams
from genserve.serving.fields import BadRequest, parse
from genserve.serving.orders import Order
from genserve.serving.replies import Reply
from genserve.serving.requests.diffusion import RESAMPLE, STRENGTH, DiffusionRequest
from genserve.serving.service import Service

SEVEN, TOP = ((ROOT / "docs" / "images" / name).read_bytes() for name in ("seven.png", "mask.png"))
SMALL = images.png(np.zeros((4, 4, 1), np.uint8))
DIGITS = Spec(
    name="digits",
    family="diffusion",
    shape=(1, 28, 28),
    classes=tuple("0123456789"),
    sigma_min=0.002,
    sigma_max=40.0,
    steps=10,
    guidance=2.0,
)


def order(**fields: Any) -> Order:
    return parse(DiffusionRequest, fields, text=False).resolved(DIGITS)[0]


# ---- what is taken -----------------------------------------------------------------------------------------


def test_one_picture_starts_every_image() -> None:
    images_of_it = order(init_image=SEVEN, num_samples=3)
    assert images_of_it.pictures is not None
    assert images_of_it.pictures.shape == (3, 1, 28, 28)
    assert torch.equal(images_of_it.pictures[0], images_of_it.pictures[2])
    assert images_of_it.keep is None
    assert images_of_it.label is None  # a picture has no class unless one is named
    assert order(init_image=SEVEN, label=7, num_samples=2).label == (7, 7)


def test_what_is_left_open_with_a_picture_or_a_mask() -> None:
    assert order(init_image=SEVEN).facts["strength"] == STRENGTH
    assert order(init_image=SEVEN).nfe == 5
    assert order(init_image=SEVEN, label=1).nfe == 10  # guidance, which goes with a class
    kept = order(init_image=SEVEN, mask=TOP)
    assert (kept.facts["strength"], kept.facts["resample"], kept.nfe) == (1.0, RESAMPLE, 10 * RESAMPLE)
    assert kept.keep is not None
    assert kept.keep[0, :14].all()
    assert not kept.keep[0, 14:].any()
    assert order(init_image=SEVEN, mask=TOP, strength=0.5, resample=1).nfe == 5
    assert {"strength", "resample", "seed_to"}.isdisjoint(order().facts)


def test_base64_and_a_file_are_the_same_picture() -> None:
    text = order(init_image=base64.b64encode(SEVEN).decode(), num_samples=1).pictures
    file = order(init_image=SEVEN, num_samples=1).pictures
    assert text is not None
    assert file is not None
    assert torch.equal(text, file)


def test_between_two_seeds_all_images_have_the_class_of_the_first() -> None:
    assert order(seed=1, seed_to=2, num_samples=3, label=4).label == (4, 4, 4)
    drawn = order(seed=1, first_index=5).label
    assert drawn is not None
    assert order(seed=1, seed_to=2, first_index=5, num_samples=3).label == (drawn[0],) * 3
    assert order(seed=1, seed_to=1, num_samples=2).facts["seed_to"] == 1


@pytest.mark.parametrize(
    ("fields", "field", "allowed"),
    [
        ({"strength": 0.5}, "strength", "only with init_image"),
        ({"mask": TOP}, "mask", "only with init_image"),
        ({"init_image": SEVEN, "resample": 2}, "resample", "only with init_image and mask"),
        ({"resample": 2}, "resample", "only with init_image and mask"),
        ({"init_image": SEVEN, "strength": 0}, "strength", "above 0 to 1"),
        ({"init_image": SEVEN, "strength": 1.5}, "strength", "above 0 to 1"),
        ({"init_image": SEVEN, "strength": 0.5, "steps": 1}, "strength", "1, or no init_image"),
        ({"init_image": SEVEN, "steps": 1}, "steps", "2 or more, or no init_image"),
        ({"init_image": SEVEN, "mask": TOP, "resample": 0}, "resample", "1 to 50"),
        ({"init_image": SEVEN, "mask": TOP, "resample": 51}, "resample", "1 to 50"),
        ({"init_image": SMALL}, "init_image", "28 x 28 pixels, gray, PNG, JPEG"),
        ({"init_image": SEVEN, "mask": SMALL}, "mask", "28 x 28 pixels, gray, PNG, JPEG"),
        ({"init_image": b"\x89PNG\r\n\x1a\n"}, "init_image", "28 x 28 pixels, gray, PNG, JPEG"),
        ({"init_image": 3}, "init_image", "a picture of the model's size"),
        ({"init_image": [SEVEN, SEVEN]}, "init_image", "a picture of the model's size"),
        ({"init_image": SEVEN, "guidance": 2}, "guidance", "1, or a label"),
        ({"seed_to": 2, "num_samples": 1}, "seed_to", "num_samples of 2 or more"),
        ({"seed_to": 2, "label": [1, 2]}, "label", "one label, no list"),
        ({"seed_to": -1}, "seed_to", f"0 to {2**63 - 1}"),
        ({"init_image": SEVEN, "mask": TOP, "resample": 50, "steps": 50}, "resample", "at most"),
        ({"init_image": SEVEN, "strength": 1.0, "steps": 1000, "num_samples": 64}, "steps", "at most"),
        ({"task": "describe", "init_image": SEVEN}, "init_image", "no other field"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(fields: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(BadRequest) as refused:
        order(**fields)
    assert refused.value.field == field
    assert refused.value.allowed.startswith(allowed)


# ---- what comes out ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return service(tmp_path_factory.mktemp("model"), precision="fp32")


def pixels(reply: Reply) -> np.ndarray:
    assert reply.status == 200, reply.body
    return np.load(io.BytesIO(reply.body)).astype(int)


def test_a_picture_and_a_mask_are_drawn_from_by_the_formula(digits: Service) -> None:
    """Worked out without the served code, with the network itself; within one gray."""
    by_hand = ByHand("diffusion-mnist")
    start = images.normalise(torch.from_numpy(_gray(SEVEN))).expand(2, 1, 28, 28)
    sigmas, y = by_hand.sigmas("karras", 6, 40.0), torch.full((2,), 7)
    keep = torch.arange(28).view(1, 28, 1).expand(1, 28, 28) < 14
    noise = Streams(3, range(2))
    x_t = start + sigmas[3] * noise(start)
    varied = solved("ddim", x_t, sigmas[3:], 0.5, lambda x, sigma: by_hand.x_0(x, sigma, y), noise)
    filled = by_hand.through_levels(
        {"steps": 6, "sampler": "ddim", "eta": 0.5}, start, y, keep, Streams(3, range(2))
    )
    fields = {"seed": 3, "num_samples": 2, "label": 7, "steps": 6, "sampler": "ddim", "eta": 0.5}
    fields |= {"schedule": "karras", "format": "npy", "init_image": SEVEN}
    replies = digits.answers([fields | {"strength": 0.5}, fields | {"mask": TOP, "resample": 1}])
    for reply, expected in zip(replies, (varied, filled), strict=True):
        assert abs(pixels(reply) - images.to_pixels(expected)).max() <= 1
    assert [reply.headers["X-NFE"] for reply in replies] == ["3", "6"]
    assert replies[0].headers["X-Strength"] == "0.5"
    assert replies[1].headers["X-Resample"] == "1"


def _gray(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)).convert("L"))


@pytest.mark.parametrize("run", ["diffusion-mnist", "consistency-mnist", "diffusion-cifar10"])
def test_kept_pixels_are_the_picture_s_own_and_company_changes_nothing(run: str, tmp_path: Path) -> None:
    model = service(tmp_path, run)  # in what the machine is fast at
    c, h, w = model.spec.shape
    picture = np.random.default_rng(0).integers(0, 256, (h, w, c), np.uint8)
    mask = np.zeros((h, w, 1), np.uint8)
    mask[:, : w // 2] = 255
    varied = {"init_image": images.png(picture), "strength": 0.5, "seed": 1, "format": "npy", "steps": 4}
    masked = varied | {"mask": images.png(mask), "strength": 1.0}
    (alone,) = model.answers([masked | {"num_samples": 3}])
    others = model.answers([varied | {"num_samples": 2}, masked | {"num_samples": 5}, {"steps": 3}])
    for reply in (alone, others[1]):
        assert (pixels(reply)[:, :, : w // 2] == picture[:, : w // 2]).all()
    difference = abs(pixels(alone) - pixels(others[1])[:3])
    assert difference.max() <= (0 if model.running.precision == "bf16" else 1)
    assert len(np.unique(pixels(alone)[:, :, w // 2 :], axis=0)) == 3  # three different right halves


def test_the_ends_between_two_seeds_are_their_plain_images(digits: Service) -> None:
    fields: dict[str, Any] = {"label": 3, "steps": 6, "first_index": 2}  # tuned, with fresh noise
    between, first, last = digits.answers(
        [
            fields | {"seed": 1, "seed_to": 2, "num_samples": 5, "format": "json"},
            fields | {"seed": 1, "num_samples": 1, "format": "json"},
            fields | {"seed": 2, "num_samples": 1, "format": "json"},
        ]
    )
    rows = json.loads(between.body)["images"]
    assert [row["t"] for row in rows] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert {(row["seed"], row["seed_to"], row["index"]) for row in rows} == {(1, 2, 2)}
    assert between.headers["X-Seed-To"] == "2"
    assert json.loads(between.body)["settings"]["seed_to"] == 2
    for row, reply in ((rows[0], first), (rows[-1], last)):
        assert row["png"] == json.loads(reply.body)["images"][0]["png"]


def test_a_stream_and_a_strip_show_the_steps_that_are_run(digits: Service) -> None:
    fields = {"init_image": SEVEN, "steps": 8, "num_samples": 1, "seed": 1}
    stream, strip = digits.answers(
        [fields | {"stream": "jsonl", "frames": 50}, fields | {"format": "filmstrip"}]
    )
    lines = [json.loads(line) for line in stream.body.splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]  # half of 8; the last guess is the picture
    assert [line["nfe"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["settings"]["strength"] == STRENGTH
    assert _gray(strip.body).shape == (28, 5 * 28 + 4 * 2)  # four levels and the picture, 2 pixels apart


def test_a_picture_stands_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    request = parse(DiffusionRequest, {"init_image": SEVEN, "mask": TOP}, text=False)
    for text in (repr(request), repr(request.resolved(DIGITS)), caplog.text):
        assert "PNG" not in text
        assert "tensor" not in text
