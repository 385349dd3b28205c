"""Drawing in bulk: an image depends on its seed and number, and classes come in fair shares."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genserve.drawing.local import draw, draw_once, fair_classes
from genserve.models.denoiser import Denoiser
from genserve.runs.contract import Spec, Walk
from genserve.sampling.noise import Streams
from genserve.sampling.schedules import Tuned
from genserve.sampling.settings import Setting

MODEL = Spec(
    name="m",
    family="diffusion",
    shape=(1, 4, 4),
    classes=("dark", "light"),
    sigma_min=0.002,
    sigma_max=40.0,
)


class Towards(nn.Module):
    """F of a denoiser that pulls each class to a gray of its own; counts the images it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.gray = nn.Parameter(torch.tensor([-0.8, 0.8, 0.0]))
        self.asked = 0

    def forward(self, x: Tensor, c_noise: Tensor, y: Tensor) -> Tensor:
        self.asked += len(x)
        return 2 * self.gray[y].view(-1, 1, 1, 1).expand_as(x) - 0.3 * x


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(Towards(), 0.0, 0.5).requires_grad_(False)


@pytest.mark.parametrize(
    "text", ["dpmpp_2m:5", "heun:4", "ddpm:6:schedule=cosine", "ddim:5:eta=1:guidance=2"]
)
def test_an_image_is_the_same_in_any_batch_at_the_cost_it_says(denoiser: Denoiser, text: str) -> None:
    setting, y = Setting.parse(text, MODEL.defaults), torch.arange(7) % 2
    together = draw(denoiser, MODEL, setting, y, seed=3)
    assert denoiser.net.asked == 7 * setting.nfe
    alone = draw(denoiser, MODEL, setting, y, seed=3, batch_size=2)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert together.flatten(1).float().std(0).min() > 1  # and images differ
    assert together[y == 1].float().mean() > together[y == 0].float().mean() + 20


class Shown(nn.Module):
    """A model of one evaluation whose image is its noise, moved by the class."""

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return (0.2 * z + 0.5 * y.unsqueeze(1)).view(-1, 1, 2, 3)


def test_an_image_of_one_evaluation_is_a_function_of_seed_number_class_and_change() -> None:
    y = torch.arange(7) % 2
    together = draw_once(Shown(), 6, y, lambda z: z, seed=3)
    assert torch.equal(draw_once(Shown(), 6, y, lambda z: z, seed=3, batch_size=2), together)
    streams = Streams(3, range(7))(torch.empty(7, 6))
    expected = ((Shown()(streams, y).clamp(-1, 1) + 1) * 127.5).round()
    assert torch.equal(together, expected.to(torch.uint8))
    still = draw_once(Shown(), 6, y, lambda z: 0 * z, seed=3)
    assert still.flatten(1).unique(dim=0).tolist() == [[128] * 6, [191] * 6]


def test_a_setting_says_what_it_changes_and_the_model_the_rest() -> None:
    setting = Setting.parse("ddim:50:schedule=linear:eta=0.5:guidance=1.5:sigma_max=20", MODEL.defaults)
    assert (setting.sampler, setting.steps, setting.schedule, setting.eta, setting.guidance) == (
        "ddim",
        50,
        "linear",
        0.5,
        1.5,
    )
    assert (setting.sigma_min, setting.sigma_max) == (MODEL.sigma_min, 20)
    assert setting.sigmas[0] <= 20
    assert setting.nfe == 100  # guidance asks twice


@pytest.mark.parametrize(
    "text",
    [
        "",
        "heun",
        "euler:10",
        "heun:ten",
        "heun:0",
        "heun:10:rho=7",
        "heun:10:guidance",
        "heun:10:eta=1",
        "heun:10:schedule=sine",
        "heun:5000:schedule=linear",
    ],
)
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"SAMPLER:STEPS|sampler: |eta: heun takes no eta|schedule|at least 1"
    ):
        Setting.parse(text, MODEL.defaults)


def test_classes_come_in_their_shares_at_every_n_and_image_k_keeps_its_own() -> None:
    counts = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    y = fair_classes(10_000, counts)
    assert y[:100].equal(fair_classes(100, counts))
    so_far = torch.nn.functional.one_hot(y, 10).cumsum(0)
    expected = torch.arange(1, 10_001).unsqueeze(1) * counts / counts.sum()
    assert (so_far - expected).abs().max() < 3  # images; of independent draws it would be about 100


def test_a_class_that_never_occurs_is_never_drawn() -> None:
    drawn = fair_classes(1000, torch.tensor([0, 3, 0, 1, 0]))
    assert drawn.bincount(minlength=5).tolist() == [0, 750, 0, 250, 0]


class Spring(nn.Module):
    """An energy with noise levels: of images that are one gray, by class; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gray = nn.Parameter(torch.tensor([-0.5, 0.5, 0.0]))
        self.asked = 0

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        self.asked += len(x)
        centred = x - self.gray[y].view(-1, 1, 1, 1)
        return centred.square().flatten(1).sum(1) / (2 * (0.1 + sigma**2))


WALK = Walk(plain=True, read_sigma=1.0, step_size=0.2, noise_std=0.1, gradient_max=0.5)
ENERGY = replace(MODEL, family="energy", walk=replace(WALK, plain=False))
PLAIN = replace(ENERGY, walk=WALK, sampler="langevin", sigma_min=1.0, sigma_max=1.0, classes=())


@pytest.mark.parametrize(
    ("text", "model", "nfe"),
    [
        ("heun:4", ENERGY, 7),
        ("ddim:5:eta=1", ENERGY, 5),
        ("langevin:6:step_size=0.4:noise=0.5", ENERGY, 7),
        ("langevin:6", PLAIN, 6),
    ],
)
def test_an_energy_is_drawn_from_like_a_denoiser(text: str, model: Spec, nfe: int) -> None:
    setting, y, energy = (
        Setting.parse(text, model.defaults),
        torch.arange(7) % 2,
        Spring().requires_grad_(False),
    )
    together = draw(energy, model, setting, y, seed=3)
    assert (setting.nfe, energy.asked) == (nfe, 7 * nfe)
    alone = draw(energy, model, setting, y, seed=3, batch_size=2)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert together[y == 1].float().mean() > together[y == 0].float().mean() + 20


def test_what_a_setting_of_an_energy_leaves_out_is_the_walk_s() -> None:
    setting = Setting.parse("langevin:6:noise=0.3", PLAIN.defaults)
    assert (setting.step_size, setting.noise, setting.gradient_max) == (0.2, 0.3, 0.5)
    for text in ("ddim:5", "langevin:5:guidance=2"):
        with pytest.raises(ValueError, match=r"sampler: only langevin and mala|KEY one of"):
            Setting.parse(text, PLAIN.defaults)


TUNED = (Tuned(sampler="dpmpp_2m", eta=0.5, sigmas=(30.0, 2.0)),)


def test_tuned_levels_are_the_model_s() -> None:
    model = replace(MODEL, tuned=TUNED)
    setting = Setting.parse("ddim:2:schedule=tuned", model.defaults)
    assert setting.sigmas.tolist() == [30.0, 2.0, 0.0]
    with pytest.raises(ValueError, match="tuned knows 2"):
        Setting.parse("ddim:3:schedule=tuned", model.defaults)


NOISY = replace(MODEL, sampler="ddim", eta=1.0, tuned=TUNED, schedule="cosine", guidance=2.0)


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        (NOISY, {"steps": 2}, "dpmpp_2m:2:schedule=tuned:eta=0.5:guidance=2"),
        (NOISY, {"steps": 7}, "ddim:7:schedule=cosine:eta=1:guidance=2"),
        (NOISY, {"steps": 7, "guidance": 1}, "ddim:7:schedule=cosine:eta=1:guidance=1"),
        (NOISY, {"steps": 7, "schedule": "karras"}, "ddim:7:schedule=karras:eta=1:guidance=2"),
        (MODEL, {}, "dpmpp_2m:18"),
        (MODEL, {"sampler": "heun", "sigma_max": 20.5}, "heun:18:sigma_max=20.5"),
        (ENERGY, {"sampler": "langevin", "step_size": 0.25}, "langevin:18:step_size=0.25"),
        (ENERGY, {"sampler": "langevin", "step_size": 0.2}, "langevin:18:step_size=0.2"),
        (PLAIN, {}, "langevin:18"),
        (PLAIN, {"noise": 0.0, "step_size": 1e-7}, "langevin:18:step_size=1e-07:noise=0"),
    ],
)
def test_a_setting_as_text_means_the_same_setting(model: Spec, fields: dict[str, Any], text: str) -> None:
    setting = Setting.of(model.defaults, **fields)
    assert setting.text(model.defaults) == text
    assert Setting.parse(text, model.defaults) == setting
