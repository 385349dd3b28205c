"""The shipped energies in this process: every task, alone and in company."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import ByHand, Expected
from hand_drawn import MASK, NOISY, SEVEN, STATIC, ask, digit, energies, pixels
from loading import service
from PIL import Image
from real_server import ROOT

from genserve import images
from genserve.measure import metrics
from genserve.measure.features import features_of
from genserve.runs.directory import load_classifier, load_model
from genserve.sampling.noise import Streams
from genserve.serving.service import Service

MIXED: list[dict[str, Any]] = [
    {"num_samples": 2, "seed": 1, "steps": 4},
    {"num_samples": 1, "seed": 2, "steps": 6, "sampler": "langevin"},
    {"num_samples": 2, "seed": 3, "steps": 3, "sampler": "heun", "label": 7},
    {"task": "refine", "images": [NOISY, SEVEN], "steps": 5, "seed": 4, "noise": 0.1},
    {"task": "refine", "images": NOISY, "steps": 6, "sampler": "mala", "seed": 5, "step_size": 0.05},
    {"task": "restore", "images": NOISY, "steps": 4, "seed": 6},
    {"task": "restore", "images": SEVEN, "mask": MASK, "steps": 5, "seed": 7, "label": 7},
    {"task": "explain", "images": STATIC},
]
CLASSIC: list[dict[str, Any]] = [
    {"num_samples": 2, "seed": 1, "sampler": "langevin", "steps": 9},
    {"num_samples": 2, "seed": 2, "sampler": "mala", "steps": 6, "step_size": 3},
    {"task": "refine", "images": NOISY, "steps": 5, "seed": 3},
]


def tensor(*pictures: str) -> torch.Tensor:
    """Return pictures that were sent, (N, 1, 28, 28) in [-1, 1]."""
    arrays = [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in pictures]
    return torch.from_numpy(np.stack(arrays)).unsqueeze(1) / 127.5 - 1


def answers_by_hand(name: str, requests: list[dict[str, Any]]) -> list[Expected]:
    """Return what every request must get, whoever else asks."""
    energy, expected = ByHand(name), []
    for fields in requests:
        sent = fields.get("images")
        x = None if sent is None else tensor(*([sent] if isinstance(sent, str) else sent))
        keep = tensor(fields["mask"])[0] > 0 if "mask" in fields else None
        expected.append(energy.answer(fields, x, keep))
    return expected


def shown(answer: Expected, request: dict[str, Any]) -> np.ndarray:
    """Return the pixels of an answer; of `explain`, the heat map of the gradient."""
    if request.get("task") != "explain":
        return images.to_pixels(answer.x).astype(int)
    gradient = ByHand("energy-mnist").slope(answer.x, 0.5, torch.tensor([10]))[1]
    return images.to_pixels(images.heat(answer.x, gradient)).astype(int)


@pytest.mark.parametrize(("name", "requests"), [("energy-mnist", MIXED), ("energy-mnist-pcd", CLASSIC)])
def test_in_company_every_task_gets_what_its_formula_gives(
    name: str, requests: list[dict[str, Any]], tmp_path: Path
) -> None:
    """In float32: the last gray level and a thousandth of the energy are left to rounding."""
    replies = ask(service(tmp_path, name, precision="fp32"), *({**r, "format": "npy"} for r in requests))
    for request, reply, answer in zip(requests, replies, answers_by_hand(name, requests), strict=True):
        assert abs(pixels(reply) - shown(answer, request)).max() <= 1, request
        assert energies(reply) == pytest.approx(answer.energies.tolist(), rel=1e-3, abs=1e-3), request


def test_in_bf16_too_but_for_its_rounding(energy: Service) -> None:
    # without MALA: rounding may turn a step that is just accepted, and the chain then goes elsewhere
    requests = [request for request in MIXED if request.get("sampler") != "mala"]
    replies = ask(energy, *({**r, "format": "npy"} for r in requests))
    answers = answers_by_hand("energy-mnist", requests)
    for request, reply, answer in zip(requests, replies, answers, strict=True):
        assert abs(pixels(reply) - shown(answer, request)).mean() < 1.5, request
        assert energies(reply) == pytest.approx(answer.energies.tolist(), rel=0.03), request


def test_a_score_is_the_energy_of_the_trained_network(energy: Service) -> None:
    (reply,) = ask(energy, {"images": [SEVEN, STATIC], "sigma": 0.5})
    answer = json.loads(reply.body)
    network = load_model(ROOT / "weights" / "energy-mnist")
    x = torch.stack(
        [torch.from_numpy(np.array(Image.open(io.BytesIO(base64.b64decode(p))))) for p in (SEVEN, STATIC)]
    )
    with torch.no_grad():
        expected = network(x.unsqueeze(1) / 127.5 - 1, torch.full((2,), 0.5), torch.full((2,), 10))
    scores = [row["energy"] for row in answer["images"]]
    assert scores == pytest.approx(expected.tolist(), rel=0.05)  # bf16 against fp32
    assert set(answer["images"][0]) == {"index", "seed", "label", "energy", "rank"}
    assert (reply.headers["X-NFE"], answer["nfe"], answer["settings"]["sigma"]) == ("1", 1, 0.5)
    assert "X-Seed" not in reply.headers  # nothing was drawn


def test_ranks_tell_the_familiar_from_the_unfamiliar(energy: Service) -> None:
    (reply,) = ask(energy, {"images": [SEVEN, STATIC]})
    familiar, unfamiliar = (row["rank"] for row in json.loads(reply.body)["images"])
    assert familiar < 0.999
    assert unfamiliar == 1


def test_what_it_draws_has_the_energy_of_what_it_learnt(energy: Service) -> None:
    (reply,) = ask(energy, {"num_samples": 32, "seed": 0, "format": "json"})
    ranks = [row["rank"] for row in json.loads(reply.body)["images"]]
    assert 0.2 < np.mean(ranks) < 0.9
    assert sum(rank == 1 for rank in ranks) <= 2


def test_refining_goes_downhill_and_says_so(energy: Service) -> None:
    (reply,) = ask(energy, {"task": "refine", "images": [NOISY, SEVEN], "format": "json"})
    for row in json.loads(reply.body)["images"]:
        assert row["energy"] < row["energy_before"]
        assert row["rank"] <= row["rank_before"]
    assert reply.headers["X-NFE"] == "22"  # twenty steps between two readings


def test_mala_says_how_many_of_its_steps_were_taken(energy: Service) -> None:
    fields = {"task": "refine", "images": [SEVEN, NOISY], "sampler": "mala", "steps": 8, "seed": 1}
    short, long = ask(energy, {**fields, "step_size": 1e-6}, {**fields, "step_size": 5.0})
    assert short.headers["X-Acceptance"] == "1.0,1.0"
    assert float(long.headers["X-Acceptance"].split(",")[0]) < 0.5


def test_restoring_takes_the_noise_away(energy: Service) -> None:
    (reply,) = ask(energy, {"task": "restore", "images": NOISY, "format": "npy", "seed": 1})
    clean = digit().astype(int)
    noisy = np.array(Image.open(io.BytesIO(base64.b64decode(NOISY)))).astype(int)
    restored = pixels(reply)[0, ..., 0]
    assert np.abs(restored - clean).mean() < np.abs(noisy - clean).mean() / 2


@pytest.mark.parametrize("run", ["energy", "classic"])
def test_a_mask_keeps_what_is_white_and_fills_the_rest(run: str, request: pytest.FixtureRequest) -> None:
    energy = request.getfixturevalue(run)
    fields = {"task": "restore", "images": SEVEN, "mask": MASK, "format": "npy"}
    one, other = (pixels(r)[0, ..., 0] for r in ask(energy, {**fields, "seed": 1}, {**fields, "seed": 2}))
    assert (one[:14] == digit()[:14]).all()
    assert (other[:14] == digit()[:14]).all()
    assert one[14:].max() > 100
    assert (one[14:] != other[14:]).any()


def test_a_heat_map_is_the_gradient(energy: Service) -> None:
    (reply,) = ask(energy, {"task": "explain", "images": STATIC, "format": "npy", "sigma": 0.5})
    shown = pixels(reply)[0]
    assert shown.shape == (28, 28, 3)
    network = load_model(ROOT / "weights" / "energy-mnist")
    x = torch.from_numpy(np.array(Image.open(io.BytesIO(base64.b64decode(STATIC)))))[None, None] / 127.5 - 1
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, torch.tensor([0.5]), torch.tensor([10])).sum(), x)
    warm = shown[..., 0] - shown[..., 2]  # red minus blue
    assert np.corrcoef(warm.flatten(), gradient.flatten().numpy())[0, 1] > 0.95


def test_an_image_is_its_seed_and_index(energy: Service) -> None:
    few, later = ask(
        energy,
        {"num_samples": 3, "seed": 1, "format": "npy", "steps": 4, "sampler": "langevin"},
        {"num_samples": 1, "seed": 1, "first_index": 2, "format": "npy", "steps": 4, "sampler": "langevin"},
    )
    assert abs(pixels(later) - pixels(few)[2:]).max() <= 1


@pytest.mark.parametrize("sampler", ["langevin", "mala"])
def test_the_classic_energy_walks_from_uniform_noise(classic: Service, sampler: str) -> None:
    strip, plain = ask(
        classic,
        {"seed": 1, "num_samples": 2, "sampler": sampler, "steps": 12, "format": "filmstrip"},
        {"seed": 1, "num_samples": 2, "sampler": sampler, "steps": 12, "format": "npy"},
    )
    assert strip.headers["X-NFE"] == ("13" if sampler == "langevin" else "14")
    shown = np.array(Image.open(io.BytesIO(strip.body))).astype(int)
    noise = 2 * torch.special.ndtr(Streams(1, range(2))(torch.empty(2, 1, 28, 28))) - 1
    start = images.to_pixels(noise)[0, ..., 0].astype(int)
    assert abs(shown[:28, :28] - start).max() <= 1  # the first look is where it starts
    assert abs(shown[:28, -28:] - pixels(plain)[0, ..., 0]).max() <= 1


def test_the_classic_energy_draws_strokes_from_noise(classic: Service) -> None:
    (reply,) = ask(classic, {"seed": 1, "num_samples": 8, "format": "json"})
    rows = json.loads(reply.body)["images"]
    assert np.mean([row["rank"] for row in rows]) < 0.99  # of noise it would be 1


def test_describe_says_how_it_is_read_and_walked_on(energy: Service) -> None:
    (reply,) = ask(energy, {"task": "describe"})
    described = json.loads(reply.body)
    assert described["family"] == "energy"
    assert described["walk"]["read_sigma"] == 0.5
    assert described["walk"]["energies"] == sorted(described["walk"]["energies"])
    assert len(described["walk"]["energies"]) == 5  # quartiles


@pytest.mark.parametrize("steps", [4, 6])
def test_few_steps_draw_the_classes_asked_for(energy: Service, steps: int) -> None:
    """Started from more noise than the sampler is told of, as once, 78 and 91 of 100 are recognised."""
    labels = [str(k % 10) for k in range(60)]
    (reply,) = ask(energy, {"steps": steps, "seed": 0, "label": labels, "format": "npy"})
    classifier = load_classifier(ROOT / "weights" / "classifier-mnist")
    features = features_of(classifier, torch.from_numpy(pixels(reply)).byte().permute(0, 3, 1, 2))
    right = metrics.accuracy(classifier.logits(features), torch.arange(60) % 10)
    assert right >= 0.95
