"""The shipped diffusion model in this process: settings, formats, and company."""

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import ByHand
from loading import service
from PIL import Image

from genserve import images
from genserve.serving.orders import Order
from genserve.serving.replies import Reply
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.service import Service


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return service(tmp_path_factory.mktemp("model"))


def ask(digits: Service, *requests: dict[str, Any]) -> list[Reply]:
    replies = digits.answers(requests)
    assert len(replies) == len(requests)
    return replies


def pixels(reply: Reply) -> np.ndarray:
    assert reply.status == 200, reply.body
    return np.load(io.BytesIO(reply.body)).astype(int)


MIXED: list[dict[str, Any]] = [
    {"num_samples": 1, "seed": 1, "steps": 3},
    {"num_samples": 3, "seed": 2, "steps": 5, "sampler": "heun", "label": 7},
    {"num_samples": 2, "seed": 3, "steps": 8, "sampler": "ddim", "eta": 0.7, "schedule": "cosine"},
    {
        "num_samples": 2,
        "seed": 4,
        "steps": 4,
        "sampler": "ddpm",
        "schedule": "linear",
        "label": [1, 2],
        "guidance": 3,
    },
    {"num_samples": 1, "seed": 5, "steps": 1, "schedule": "offset_cosine"},
    {"num_samples": 2, "seed": 6, "steps": 6},  # tuned, with fresh noise
]


@pytest.mark.parametrize(("precision", "largest", "mean"), [("fp32", 1, 0.1), ("bf16", 20, 1)])
def test_in_company_every_request_gets_what_its_formula_gives(
    precision: str, largest: int, mean: float, tmp_path: Path
) -> None:
    """In gray levels: float32 leaves the last one to rounding, bf16 more where a stroke's edge moves."""
    by_hand = ByHand("diffusion-mnist")
    replies = ask(
        service(tmp_path, precision=precision), *({**request, "format": "npy"} for request in MIXED)
    )
    for request, reply in zip(MIXED, replies, strict=True):
        error = abs(pixels(reply) - images.to_pixels(by_hand.drawn(request)).astype(int))
        assert error.max() <= largest, request
        assert error.mean() <= mean, request


def test_an_image_is_its_seed_and_index(digits: Service) -> None:
    few, many, later = ask(
        digits,
        {"num_samples": 2, "seed": 1, "format": "npy", "steps": 4},
        {"num_samples": 5, "seed": 1, "format": "npy", "steps": 4},
        {"num_samples": 2, "seed": 1, "first_index": 3, "format": "npy", "steps": 4},
    )
    assert abs(pixels(few) - pixels(many)[:2]).max() <= 1
    assert abs(pixels(later) - pixels(many)[3:]).max() <= 1
    assert abs(pixels(few)[0] - pixels(few)[1]).max() > 100


def test_a_drawn_seed_can_be_asked_for_again(digits: Service) -> None:
    (first,) = ask(digits, {"num_samples": 1, "steps": 3})
    (again,) = ask(digits, {"num_samples": 1, "steps": 3, "seed": int(first.headers["X-Seed"])})
    assert first.body == again.body


def test_bad_requests_are_answered_among_good_ones(digits: Service) -> None:
    replies = ask(digits, MIXED[0], {"steps": 0}, MIXED[1], {"nonsense": 1}, {"label": 10})
    assert [r.status for r in replies] == [200, 400, 200, 400, 400]
    assert [json.loads(r.body)["field"] for r in replies if r.status == 400] == [
        "steps",
        "nonsense",
        "label",
    ]


def test_a_row_that_breaks_us_is_a_500_and_nobody_else_notices(
    digits: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = DiffusionRequest.begin

    def broken(order: Order, *more: Any) -> Any:
        if order.seed == 13:
            raise RuntimeError("a bug")
        return begin(order, *more)

    monkeypatch.setattr(DiffusionRequest, "begin", staticmethod(broken))
    replies = ask(digits, MIXED[0], {"seed": 13}, MIXED[1])
    assert [r.status for r in replies] == [200, 500, 200]
    assert ask(digits, MIXED[0])[0].body == replies[0].body  # and the next batch is as any other


def test_a_filmstrip_of_heun_shows_each_level_once(digits: Service) -> None:
    strips = ask(
        digits,
        *(
            {"num_samples": 1, "seed": 1, "steps": 5, "format": "filmstrip", "sampler": s}
            for s in ("heun", "ddim")
        ),
    )
    heun, ddim = (np.asarray(Image.open(io.BytesIO(r.body))).astype(int) for r in strips)
    assert heun.shape == ddim.shape == (28, 6 * 30 - 2)
    assert np.array_equal(heun[:, :28], ddim[:, :28])  # the same noise
    assert abs(heun[:, 30:58] - ddim[:, 30:58]).max() > 0  # and then its own way, not Euler's trial point


def test_every_format_shows_the_same_images(digits: Service) -> None:
    same = {"num_samples": 3, "seed": 8, "steps": 6, "label": [0, 1, 2], "columns": 3}
    free = {k: v for k, v in same.items() if k != "columns"}
    formats = ("npy", "json", "zip", "filmstrip")
    png, gif, npy, as_json, as_zip, strip = ask(
        digits, same, {**same, "format": "gif"}, *({**free, "format": f} for f in formats)
    )
    expected = pixels(npy)[..., 0]
    assert expected.shape == (3, 28, 28)

    sheet = np.asarray(Image.open(io.BytesIO(png.body)))
    assert png.content_type == "image/png"
    assert np.array_equal(np.stack([sheet[:, 30 * k : 30 * k + 28] for k in range(3)]), expected)

    answer = json.loads(as_json.body)
    assert [(e["index"], e["seed"], e["label"]) for e in answer["images"]] == [
        (0, 8, 0),
        (1, 8, 1),
        (2, 8, 2),
    ]
    assert (answer["seed"], answer["nfe"], answer["settings"]["steps"]) == (8, 6, 6)
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(e["png"])))) for e in answer["images"]]
    assert np.array_equal(np.stack(decoded), expected)

    with zipfile.ZipFile(io.BytesIO(as_zip.body)) as archive:
        assert archive.namelist() == ["00001.png", "00002.png", "00003.png"]
        decoded = [np.asarray(Image.open(archive.open(name))) for name in archive.namelist()]
    assert np.array_equal(np.stack(decoded), expected)

    film = np.asarray(Image.open(io.BytesIO(strip.body)))
    assert film.shape == (3 * 30 - 2, 7 * 30 - 2)  # six moments and the picture
    assert np.array_equal(film[:28, 180:], expected[0])
    neighbours = [
        np.corrcoef(x[:, 1:].ravel(), x[:, :-1].ravel())[0, 1] for x in (film[:28, :28], film[:28, 180:])
    ]
    assert abs(neighbours[0]) < 0.15 < neighbours[1]  # it starts as noise, in which no pixel knows the next

    with Image.open(io.BytesIO(gif.body)) as animation:
        assert animation.n_frames == 7
        animation.seek(6)
        last = np.asarray(animation.convert("L"))
    assert np.array_equal(last, sheet)


def test_scale_enlarges_pixels(digits: Service) -> None:
    small, large = ask(digits, *({"num_samples": 1, "seed": 1, "steps": 2, "scale": s} for s in (1, 3)))
    a, b = (np.asarray(Image.open(io.BytesIO(r.body))) for r in (small, large))
    assert np.array_equal(a.repeat(3, 0).repeat(3, 1), b)


def test_headers_say_what_it_took(digits: Service) -> None:
    (reply,) = ask(digits, {"num_samples": 1, "steps": 4, "sampler": "heun", "label": 1, "guidance": 2})
    assert reply.headers["X-NFE"] == "14"
    assert reply.headers["X-Schedule"] == "karras"
    assert "sample;dur=" in reply.headers["Server-Timing"]
    assert all(isinstance(value, str) for value in reply.headers.values())  # anything else kills a worker


def test_describe_says_what_the_model_is(digits: Service) -> None:
    (reply,) = ask(digits, {"task": "describe"})
    description = json.loads(reply.body)
    assert description["shape"] == [1, 28, 28]
    assert description["classes"] == list("0123456789")
    assert {
        "family",
        "sampler",
        "steps",
        "schedule",
        "quality",
        "backend",
        "precision",
        "threads",
        "mode",
        "device",
    } <= description.keys()


def test_a_fault_of_ours_is_a_500_without_its_details(
    digits: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(digits.lanes, "_model", broken)
    (reply,) = ask(digits, MIXED[0])
    assert reply.status == 500
    assert b"secret" not in reply.body
    monkeypatch.undo()
    assert ask(digits, MIXED[0])[0].status == 200
