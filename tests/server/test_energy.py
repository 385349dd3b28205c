"""The energy archives on a real TorchServe: pictures sent in every way, TorchScript under autograd."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from grpc_client import predict
from PIL import Image
from real_server import ROOT, Server

from genserve.runs.directory import load_model

pytestmark = pytest.mark.server
URL = "/predictions/energy"


def picture() -> bytes:
    """A one, drawn by hand, as PNG."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[6:22, 13:15] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


ONE = picture()


def scored(answer: httpx.Response) -> float:
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["images"]
    return float(row["energy"])


def test_a_picture_in_every_way_of_sending_it_has_one_energy(server: Server) -> None:
    text = base64.b64encode(ONE).decode()
    file = {"images": ("one.png", ONE, "image/png")}
    with server.client() as client:
        energies = {
            "json": scored(client.post(URL, json={"images": text})),
            "list": scored(client.post(URL, json={"images": [text], "task": "score"})),
            "form": scored(client.post(URL, data={"images": text})),
            "file": scored(client.post(URL, files=file, data={"task": "score"})),
            "body": scored(client.post(URL, content=ONE, headers={"Content-Type": "image/png"})),
            "query": scored(client.post("/energy/predict?sigma=0.5", content=ONE)),
        }
    answer = json.loads(predict(server.port + 3, "energy", {"images": ONE, "task": b"score"}))
    energies["grpc"] = float(answer["images"][0]["energy"])
    assert len(set(energies.values())) == 1, energies
    network = load_model(ROOT / "weights" / "energy-mnist")
    x = torch.from_numpy(np.array(Image.open(io.BytesIO(ONE))))[None, None] / 127.5 - 1
    with torch.no_grad():
        expected = network(x, torch.tensor([0.5]), torch.tensor([10])).item()
    assert energies["json"] == pytest.approx(expected, rel=0.05)


def test_no_body_draws_digits_with_their_energies(server: Server) -> None:
    with server.client() as client:
        answer = client.post(URL)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(answer.content)).size == (118, 118)
        assert len(answer.headers["X-Energy"].split(",")) == len(answer.headers["X-Rank"].split(",")) == 16
        again = client.post(URL, json={"seed": int(answer.headers["X-Seed"])})
        assert again.content == answer.content


def test_explanations_are_heat_maps(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/explanations/energy", files={"images": ("one.png", ONE)})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        shown = Image.open(io.BytesIO(answer.content))
        assert (shown.size, shown.mode) == ((28, 28), "RGB")
        same = client.post(URL, json={"task": "explain", "images": base64.b64encode(ONE).decode()})
        assert same.content == answer.content
        nothing = client.post("/explanations/energy")
        other = client.post("/explanations/energy", json={"task": "score"})
        assert [(a.status_code, a.json()["field"]) for a in (nothing, other)] == [
            (400, "images"),
            (400, "task"),
        ]
        diffusion = client.post("/explanations/diffusion")
        assert (diffusion.status_code, diffusion.json()["field"]) == (400, "task")


@pytest.mark.parametrize("name", ["energy", "energy-pcd"])
def test_a_crowd_of_all_tasks_gets_what_each_gets_alone(server: Server, name: str) -> None:
    text = base64.b64encode(ONE).decode()
    half = np.zeros((28, 28), np.uint8)
    half[:14] = 255
    buffer = io.BytesIO()
    Image.fromarray(half).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    requests: list[dict[str, Any]] = [
        {"seed": 1, "num_samples": 2, "steps": 8, "format": "npy"},
        {"seed": 2, "num_samples": 3, "steps": 20, "format": "npy", "sampler": "langevin"},
        {"task": "refine", "images": [text, text], "steps": 6, "seed": 3, "format": "npy"},
        {"task": "restore", "images": text, "mask": mask, "steps": 10, "seed": 4, "format": "npy"},
        {"task": "explain", "images": text, "format": "npy"},
        {"task": "score", "images": "broken"},
    ]
    with server.client() as client:

        def ask(fields: dict[str, Any]) -> httpx.Response:
            return client.post(f"/predictions/{name}", json=fields)

        alone = [ask(fields) for fields in requests]
        with ThreadPoolExecutor(18) as pool:
            crowd = list(pool.map(ask, requests * 3))
    assert [a.status_code for a in crowd] == [200, 200, 200, 200, 200, 400] * 3
    for k, answer in enumerate(crowd):
        before = alone[k % len(requests)]
        if answer.status_code == 200:
            pair = [np.load(io.BytesIO(a.content)).astype(int) for a in (answer, before)]
            assert abs(pair[0] - pair[1]).max() <= 1
        else:
            assert answer.json() == before.json()
            assert answer.json()["field"] == "images"


def test_a_walk_can_be_watched(server: Server) -> None:
    fields = {"stream": "jsonl", "steps": 400, "num_samples": 4, "frames": 6, "seed": 1}
    with server.client() as client:
        with client.stream("POST", "/predictions/energy-pcd", json=fields) as answer:
            assert answer.status_code == 200
            lines = [json.loads(line) for line in answer.iter_lines()]
        plain = client.post("/predictions/energy-pcd", json={"steps": 400, "num_samples": 4, "seed": 1})
    assert 2 <= len(lines) <= 6
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert base64.b64decode(lines[-1]["preview"]) == plain.content
    assert all("energy" in row and "rank" in row for row in lines[-1]["images"])


def test_a_body_too_large_is_refused_before_it_reaches_anybody(server: Server) -> None:
    with server.client() as client:
        answer = client.post(URL, json={"images": "A" * 300_000})
        assert answer.status_code == 413
        assert scored(client.post(URL, content=ONE)) > 0
