"""A GAN and a VAE behind the service: pictures, and what an autoencoder makes of those that are sent."""

import base64
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joined_bodies import answered, array, close, one, refused, rows
from real_server import ROOT
from small_latents import exported, network, served
from tensors_sent import tensor

from genserve.images import to_pixels
from genserve.sampling.interpolation import Between
from genserve.sampling.latent import truncated
from genserve.sampling.noise import Streams, drawn_classes
from genserve.serving.joined import JoiningService
from genserve.serving.uploads import decoded

SEVEN = base64.b64encode((ROOT / "docs/images/seven.png").read_bytes()).decode()
NOISY = base64.b64encode((ROOT / "docs/images/noisy.png").read_bytes()).decode()
X = torch.stack([decoded(base64.b64decode(SEVEN), (1, 28, 28))])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("latents")
    return {family: exported(folder, family) for family in ("gan", "vae")}


@pytest.fixture(scope="module")
def gan(runs: dict[str, Path]) -> Iterator[JoiningService]:
    service = served(runs["gan"], "gan")
    yield service
    service.close()


@pytest.fixture(scope="module")
def vae(runs: dict[str, Path]) -> Iterator[JoiningService]:
    service = served(runs["vae"], "vae")
    yield service
    service.close()


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_an_image_is_the_network_s_at_the_noise_of_its_own_stream(
    family: str, runs: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    service, net = request.getfixturevalue(family), network(runs[family])
    drawn = array(one(service, seed=5, first_index=2, num_samples=3, format="npy"))
    indices = range(2, 5)
    z = Streams(5, indices)(torch.empty(3, service.spec.z_dim))
    expected = to_pixels(net(z, torch.tensor(drawn_classes(5, indices, 10))))
    assert close(drawn, expected)


def test_truncation_and_temperature_change_the_noise(
    gan: JoiningService, vae: JoiningService, runs: dict[str, Path]
) -> None:
    y = torch.tensor([3, 3])
    for service, field, number, change in (
        (gan, "truncation", 0.5, partial(truncated, limit=0.5)),
        (vae, "temperature", 0.7, lambda eps: 0.7 * eps),
    ):
        fields = {"seed": 1, "num_samples": 2, "label": 3, "format": "npy"}
        drawn = array(one(service, **fields, **{field: number}))
        z = change(Streams(1, range(2))(torch.empty(2, service.spec.z_dim)))
        assert close(drawn, to_pixels(network(runs[service.spec.family])(z, y)))
        assert not np.array_equal(drawn, array(one(service, **fields)))
        assert one(service, **fields, **{field: number}).headers[f"X-{field.title()}"] == str(number)


def test_a_run_s_own_truncation_is_the_default(tmp_path: Path) -> None:
    service = served(exported(tmp_path, "gan", truncation=0.25, quality={"frechet": 1.0}), "gan")
    fields = {"seed": 1, "num_samples": 2, "format": "npy"}
    assert np.array_equal(array(one(service, **fields)), array(one(service, **fields, truncation=0.25)))
    description = json.loads(one(service, task="describe").body)
    assert (description["truncation"], description["quality"]) == (0.25, {"frechet": 1.0})
    service.close()


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_images_between_two_seeds_begin_and_end_with_the_seeds_own(
    family: str, request: pytest.FixtureRequest, runs: dict[str, Path]
) -> None:
    service = request.getfixturevalue(family)
    between = array(one(service, seed=1, seed_to=2, label=4, num_samples=5, format="npy"))
    for k, seed in ((0, 1), (-1, 2)):
        end = array(one(service, seed=seed, label=4, num_samples=1, format="npy"))
        assert close(between[k], end[0])
    z = Between(1, 2, 0, 5)(torch.empty(5, service.spec.z_dim))
    assert close(between, to_pixels(network(runs[family])(z, torch.tensor([4] * 5))))
    assert [row["t"] for row in rows(service, seed=1, seed_to=2, num_samples=3, format="json")] == [0, 0.5, 1]


def test_a_reconstruction_is_what_comes_back_through_the_bottleneck(
    vae: JoiningService, runs: dict[str, Path]
) -> None:
    net = network(runs["vae"])
    drawn = array(one(vae, images=[SEVEN, NOISY], label=[7, 2], format="npy"))
    x = torch.cat([X, decoded(base64.b64decode(NOISY), (1, 28, 28))[None]])
    y = torch.tensor([7, 2])
    mean, _, _ = net.encode(x, y)
    one_hot = net.one_hot(y)
    location, _ = net.decoder(mean, one_hot)  # without the flow, there and back
    assert close(drawn, to_pixels(location.clamp(-1, 1)))


def test_a_picture_without_a_label_gets_the_class_of_the_best_bound(
    vae: JoiningService, runs: dict[str, Path]
) -> None:
    net = network(runs["vae"])
    bounds = [sum(net.bound(X, torch.tensor([c]), torch.zeros(1, 6))).item() for c in range(10)]
    (row,) = rows(vae, images=SEVEN, format="json")
    assert row["label"] == int(np.argmin(bounds))
    (labelled,) = rows(vae, images=SEVEN, label=row["label"], format="json")
    assert row["png"] == labelled["png"]


def test_codes_are_the_encoder_s(vae: JoiningService, runs: dict[str, Path]) -> None:
    (row,) = rows(vae, task="encode", images=SEVEN, label=7)
    for name, expected in zip(
        ("mean", "log_variance", "noise"), network(runs["vae"]).encode(X, torch.tensor([7])), strict=True
    ):
        assert row[name] == pytest.approx(expected[0].tolist(), abs=2e-5)
    assert "X-Mean" not in one(vae, task="encode", images=SEVEN).headers  # too long for one


def test_a_bound_is_the_mean_over_its_draws_and_the_weighted_one_is_tighter(
    vae: JoiningService, runs: dict[str, Path]
) -> None:
    (row,) = rows(vae, task="bound", images=SEVEN, label=7, seed=3, draws=16)
    stream, net, nats = Streams(3, [0]), network(runs["vae"]), []
    for _ in range(16):
        nats.append(sum(net.bound(X, torch.tensor([7]), stream(torch.empty(1, 6)))).item())
    assert row["bound"] == pytest.approx(np.mean(nats), abs=1e-2)
    assert row["bound"] == pytest.approx(row["reconstruction"] + row["kl"], abs=1e-3)
    weighted = -(np.logaddexp.reduce(-np.array(nats)) - math.log(16))
    assert row["importance_weighted"] == pytest.approx(weighted, abs=1e-2)
    assert row["importance_weighted"] < row["bound"]
    assert row["bits_per_dim"] == pytest.approx(row["bound"] / math.log(2) / 784, abs=1e-3)
    (single,) = rows(vae, task="bound", images=SEVEN, label=7, seed=3)
    assert single["bound"] == pytest.approx(nats[0], abs=1e-2)
    assert "importance_weighted" not in single


def test_a_walk_goes_from_one_picture_to_the_other(vae: JoiningService) -> None:
    walk = array(one(vae, task="walk", images=[SEVEN, NOISY], label=[7, 2], num_samples=6, format="npy"))
    ends = array(one(vae, images=[SEVEN, NOISY], label=[7, 2], format="npy"))
    assert close(walk[0], ends[0])
    assert close(walk[-1], ends[1])


REQUESTS: list[dict[str, Any]] = [
    {"seed": 1, "num_samples": 3},
    {"seed": 2, "num_samples": 1, "label": 4, "temperature": 0.5},
    {"seed": 1, "seed_to": 2, "num_samples": 4},
    {"images": [SEVEN, NOISY]},
    {"task": "walk", "images": [SEVEN, NOISY], "num_samples": 3},
    {"task": "encode", "images": SEVEN, "label": 7},
    {"task": "bound", "images": SEVEN, "draws": 3, "seed": 9},
]


@settings(max_examples=15)
@given(order=st.permutations(range(len(REQUESTS))), n=st.integers(1, len(REQUESTS)))
def test_the_same_answers_alone_and_in_any_company(vae: JoiningService, order: list[int], n: int) -> None:
    requests = [{"format": "json", **REQUESTS[k]} for k in order[:n]]
    for fields, reply in zip(requests, vae.answers(requests), strict=True):
        alone = json.loads(one(vae, **fields).body)
        together = json.loads(reply.body)
        for a, b in zip(alone["images"], together["images"], strict=True):
            for name in a:
                if name == "png":
                    x, y = (decoded(base64.b64decode(row["png"]), (1, 28, 28)) for row in (a, b))
                    assert (x - y).abs().max() <= 2 / 255 + 1e-6
                else:
                    assert a[name] == pytest.approx(b[name], abs=1e-2)


@pytest.mark.parametrize(
    ("family", "fields", "name"),
    [
        ("gan", {"truncation": 0}, "truncation"),
        ("gan", {"truncation": 11}, "truncation"),
        ("gan", {"temperature": 1}, "temperature"),
        ("gan", {"steps": 3}, "steps"),
        ("gan", {"label": "none"}, "label"),
        ("gan", {"seed_to": 2, "num_samples": 1}, "seed_to"),
        ("gan", {"seed_to": 2, "label": [1, 2]}, "label"),
        ("gan", {"format": "gif"}, "format"),
        ("gan", {"format": "json", "columns": 2}, "columns"),
        ("gan", {"task": "describe", "seed": 1}, "seed"),
        ("gan", {"num_samples": 64, "scale": 16}, "scale"),
        ("vae", {"draws": 2}, "draws"),
        ("vae", {"task": "sample", "images": SEVEN}, "images"),
        ("vae", {"task": "bound"}, "images"),
        ("vae", {"task": "bound", "images": []}, "images"),
        ("vae", {"task": "bound", "images": SEVEN, "draws": 65}, "draws"),
        ("vae", {"task": "bound", "images": SEVEN, "format": "png"}, "format"),
        ("vae", {"images": SEVEN, "seed": 1}, "seed"),
        ("vae", {"images": SEVEN, "temperature": 1}, "temperature"),
        ("vae", {"images": SEVEN, "label": [1, 2]}, "label"),
        ("vae", {"images": SEVEN, "label": "none"}, "label"),
        ("vae", {"images": SEVEN, "num_samples": 2}, "num_samples"),
        ("vae", {"images": "aGVsbG8="}, "images"),
        ("vae", {"task": "walk", "images": SEVEN}, "images"),
        ("vae", {"task": "walk", "images": [SEVEN, SEVEN], "num_samples": 1}, "num_samples"),
        ("vae", {"task": "walk", "images": [SEVEN, SEVEN], "label": [1, 2, 3]}, "label"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    family: str, fields: dict[str, Any], name: str, request: pytest.FixtureRequest
) -> None:
    refused(one(request.getfixturevalue(family), **fields), name)


def test_a_model_without_classes_draws_and_looks_without_any(tmp_path: Path) -> None:
    service = served(exported(tmp_path, "vae", classes=()), "vae")
    assert [row["label"] for row in rows(service, seed=1, num_samples=2, format="json")] == [None, None]
    (row,) = rows(service, task="bound", images=SEVEN, seed=1)
    assert row["label"] is None
    assert one(service, label=1).status == 400
    service.close()


def test_tensors_have_codes_of_every_picture(vae: JoiningService) -> None:
    body = {
        "inputs": [
            tensor("images", [SEVEN, NOISY], "BYTES"),
            tensor("task", ["encode"], "BYTES"),
            tensor("label", [7, 2]),
        ],
        "outputs": [{"name": "mean"}, {"name": "label"}],
    }
    reply = answered(vae, body)
    assert reply.status == 200, reply.body
    outputs = {one["name"]: one for one in json.loads(reply.body)["outputs"]}
    assert outputs["mean"]["shape"] == [2, 1, 6]
    assert outputs["label"]["data"] == [7, 2]


def test_several_requests_in_one_body_are_answered_in_their_order(vae: JoiningService) -> None:
    requests = [{"seed": 1, "num_samples": 1}, {"images": {"b64": SEVEN}}, {"draws": 1}]
    reply = answered(vae, {"instances": requests})
    first, second, third = json.loads(reply.body)["predictions"]
    assert first["images"][0]["seed"] == 1
    assert second["settings"]["precision"] == "fp32"
    assert (third["status"], third["field"]) == (400, "draws")
