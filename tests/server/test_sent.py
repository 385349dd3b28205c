"""Pictures sent to the diffusion archives on a real TorchServe, as the README's curl commands send them."""

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from real_server import ROOT, Server

from genserve import images

pytestmark = pytest.mark.server


def rows(answer: httpx.Response) -> list[np.ndarray]:
    """Return the images of an answer in JSON, (H, W, C) each."""
    assert answer.status_code == 200, answer.text
    files = [base64.b64decode(row["png"]) for row in answer.json()["images"]]
    pictures = [np.array(Image.open(io.BytesIO(file))) for file in files]
    return [picture.reshape(*picture.shape[:2], -1) for picture in pictures]


@pytest.mark.parametrize("model", ["diffusion", "consistency"])
def test_a_picture_is_varied_and_a_mask_keeps_its_part_of_it(server: Server, model: str) -> None:
    url = f"/predictions/{model}"
    common = {"format": "json", "num_samples": "2", "seed": "1"}
    with server.client() as client:
        (drawn,) = rows(client.post(url, json={"format": "json", "num_samples": 1, "seed": 5, "label": 1}))
        half = drawn.shape[0] // 2
        mask = np.zeros_like(drawn)
        mask[:half] = 255
        picture = {"init_image": images.png(drawn)}
        files = picture | {"mask": images.png(mask)}
        varied = client.post(url, data=common | {"strength": "0.5"}, files=picture)
        filled = client.post(url, data=common, files=files)
        in_json = {name: base64.b64encode(file).decode() for name, file in files.items()}
        again = client.post(url, json={"format": "json", "num_samples": 2, "seed": 1} | in_json)
    assert varied.headers["X-Strength"] == "0.5"
    assert (filled.headers["X-Strength"], filled.headers["X-Resample"]) == ("1.0", "4")
    variations, completions = rows(varied), rows(filled)
    assert not np.array_equal(*variations)
    for picture in completions:
        assert np.array_equal(picture[:half], drawn[:half])
    assert not np.array_equal(*completions)
    for one, other in zip(completions, rows(again), strict=True):
        assert np.array_equal(one, other)


def test_between_two_seeds_the_ends_are_the_plain_pictures(server: Server) -> None:
    fields: dict[str, Any] = {"format": "json", "label": 3}
    seeds = {"seed": 1, "seed_to": 2, "num_samples": 8}
    with server.client() as client:
        between = client.post("/predictions/diffusion", json=fields | seeds)
        ends = [
            client.post("/predictions/diffusion", json=fields | {"seed": seed, "num_samples": 1})
            for seed in (1, 2)
        ]
    assert between.headers["X-Seed-To"] == "2"
    pictures = rows(between)
    for picture, end in zip((pictures[0], pictures[-1]), ends, strict=True):
        assert np.array_equal(picture, rows(end)[0])


def test_a_mask_alone_is_refused(server: Server) -> None:
    with server.client() as client:
        answer = client.post(
            "/predictions/diffusion", files={"mask": (ROOT / "docs" / "images" / "mask.png").read_bytes()}
        )
    assert answer.status_code == 400
    assert answer.json()["field"] == "mask"
    assert answer.json()["allowed"] == "only with init_image"
