"""A setting draws the same pixels whoever asks: a client of a server, or a program without one."""

import base64
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genserve import images
from genserve.drawing.local import draw
from genserve.families import load
from genserve.measure.sources import request_fields
from genserve.runs.contract import Spec, Walk
from genserve.sampling.defaults import BadSetting
from genserve.sampling.langevin import slope
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Query, Sampler, sample
from genserve.sampling.schedules import SCHEDULES, Tuned
from genserve.sampling.settings import Setting
from genserve.serving.fields import BadRequest, parse
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.energy import EnergyRequest

GRAY = torch.tensor([-0.5, 0.5, 0.0])
GRAY_4 = base64.b64encode(images.png(np.zeros((4, 4, 1), np.uint8))).decode()  # a picture of 4 x 4
VARIANCE = 0.04  # of the images around their class's gray
TUNED = (
    Tuned(sampler="dpmpp_2m", eta=0.5, sigmas=(19.0, 3.0, 0.3)),
    Tuned(sampler="ddim", eta=0.0, sigmas=(40.0, 9.0, 2.0, 0.2)),
    Tuned(sampler="consistency", eta=0.0, sigmas=(30.0, 0.8)),
)
DIFFUSION = Spec(
    name="d",
    family="diffusion",
    shape=(1, 4, 4),
    classes=("a", "b"),
    sigma_min=0.002,
    sigma_max=40.0,
    tuned=TUNED,
)
WALK = Walk(plain=False, read_sigma=0.5, noise_std=0.6)
ENERGY = replace(DIFFUSION, family="energy", sampler="ddim", eta=1.0, steps=25, walk=WALK)
ONE_LEVEL = Spec(
    name="p",
    family="energy",
    shape=(1, 4, 4),
    classes=(),
    sigma_min=1.0,
    sigma_max=1.0,
    sampler="langevin",
    steps=7,
    walk=Walk(plain=True, read_sigma=1.0, step_size=0.2, noise_std=0.1, gradient_max=0.5),
)

STEPPED = [
    *(f"{sampler}:5" for sampler in ("ddim", "ddpm", "heun", "dpmpp_2m", "consistency")),
    *("ddim:5:eta=0.7", "dpmpp_2m:6:eta=0.5"),
]
NAMED = [f"{text}:schedule={name}" for text in STEPPED for name in SCHEDULES if name != "tuned"]
FOUND = ["dpmpp_2m:3:schedule=tuned", "ddim:4:schedule=tuned:eta=1", "consistency:3:schedule=tuned"]
GUIDED = ["ddim:5:guidance=2", "heun:4:guidance=3:schedule=cosine", "dpmpp_2m:3:schedule=tuned:guidance=0"]
WALKING = [
    "langevin:9" + more
    for more in ("", ":step_size=0.4", ":noise=0.5", ":step_size=0.4:noise=0.5", ":schedule=cosine")
] + ["langevin:3:schedule=tuned"]
AT_ONE_LEVEL = ["langevin:9", "langevin:9:step_size=0.4", "langevin:9:noise=0", "mala:4:step_size=0.1"]


class Known(nn.Module):
    """A denoiser or an energy of images that are nearly one gray, by class: exact."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.energy, self.unused = spec.family == "energy", nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        gray, wide = GRAY[y].view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
        if self.energy:
            return (x - gray).square().flatten(1).sum(1) / (2 * (VARIANCE + sigma**2))
        return gray + VARIANCE / (VARIANCE + wide**2) * (x - gray)


def classes_of(spec: Spec) -> Tensor:
    return torch.arange(8) % 2 if spec.classes else torch.zeros(8, dtype=torch.long)


def sampler_of(spec: Spec, fields: dict[str, Any]) -> Sampler:
    """Return what a service of the family makes of a request."""
    kind = load(spec.kind.request)
    label = {"label": classes_of(spec).tolist()} if spec.classes else {"num_samples": 8}
    order, setting = parse(kind, fields | {"seed": 3} | label, text=False).resolved(spec)
    sampler: Sampler = kind.begin(order, setting, spec, torch.device("cpu"), None, {})
    return sampler


def by_a_client(spec: Spec, fields: dict[str, Any]) -> Tensor:
    model = Known(spec)
    evaluate = partial(slope, model) if spec.family == "energy" else model
    return torch.from_numpy(images.to_pixels(sample(sampler_of(spec, fields), evaluate))).permute(0, 3, 1, 2)


def without_a_server(spec: Spec, text: str) -> Tensor:
    return draw(Known(spec), spec, Setting.parse(text, spec.defaults), classes_of(spec), seed=3, batch_size=8)


CASES = [
    *((DIFFUSION, text) for text in NAMED + FOUND + GUIDED),
    *((ENERGY, text) for text in NAMED + FOUND + WALKING),
    *((ONE_LEVEL, text) for text in AT_ONE_LEVEL),
]


@pytest.mark.parametrize(("spec", "text"), CASES, ids=lambda value: getattr(value, "family", value))
def test_a_client_and_a_program_draw_the_same_pixels(spec: Spec, text: str) -> None:
    ours, theirs = without_a_server(spec, text), by_a_client(spec, request_fields(text, spec.defaults))
    assert torch.equal(ours, theirs)
    assert ours.float().std() > 0  # something was drawn


@pytest.mark.parametrize("more", [{"strength": 0.5}, {"strength": 0.8, "resample": 2}, {"resample": 3}])
@pytest.mark.parametrize("text", STEPPED + FOUND + GUIDED)
def test_a_client_and_a_program_start_from_the_same_picture(text: str, more: dict[str, Any]) -> None:
    keep = torch.arange(4).expand(1, 4, 4) < 2 if "resample" in more else None
    fields = request_fields(text, DIFFUSION.defaults) | more | {"init_image": GRAY_4}
    if keep is not None:
        pixels = (255 * keep.permute(1, 2, 0)).numpy().astype(np.uint8)
        fields["mask"] = base64.b64encode(images.png(pixels)).decode()
    setting = replace(Setting.parse(text, DIFFUSION.defaults), **{"strength": 1.0} | more)
    start, y = torch.full((8, 1, 4, 4), -1.0), classes_of(DIFFUSION)
    ours = setting.build(Streams(3, range(8)), start, y, no_class=2, start=start, keep=keep)
    expected = torch.from_numpy(images.to_pixels(sample(ours, Known(DIFFUSION)))).permute(0, 3, 1, 2)
    assert torch.equal(by_a_client(DIFFUSION, fields), expected)


SERVED = [
    DIFFUSION,
    replace(DIFFUSION, sampler="ddim", eta=0.7, schedule="cosine", guidance=2.0, steps=9),
    replace(DIFFUSION, steps=3),
    replace(DIFFUSION, steps=2, guidance=1.5),
    ENERGY,
    replace(ENERGY, steps=3),
    replace(ENERGY, sampler="langevin", eta=0.0, steps=11),
    ONE_LEVEL,
]


@pytest.mark.parametrize("spec", SERVED)
def test_what_is_left_open_is_what_the_model_is_served_with(spec: Spec) -> None:
    default = Setting.of(spec.defaults).text(spec.defaults)
    assert Setting.parse(default, spec.defaults) == Setting.of(spec.defaults)
    assert torch.equal(without_a_server(spec, default), by_a_client(spec, {}))


@pytest.mark.parametrize(
    ("spec", "text"),
    [(spec, "ddim:6") for spec in SERVED[:-1]] + [(spec, "langevin:6") for spec in SERVED[4:]],
)
def test_a_sampler_alone_leaves_the_rest_open(spec: Spec, text: str) -> None:
    assert torch.equal(without_a_server(spec, text), by_a_client(spec, request_fields(text, spec.defaults)))


@pytest.mark.parametrize(("spec", "text"), CASES, ids=lambda value: getattr(value, "family", value))
def test_the_first_look_is_at_the_noise_that_the_sampler_is_told(spec: Spec, text: str) -> None:
    """The oracle: the stream's own numbers, times the level of the query."""
    first: Query = next(sampler_of(spec, request_fields(text, spec.defaults)))
    x, sigma, _ = (part[:8] for part in first)  # guidance asks twice
    eps = Streams(3, range(8))(torch.empty(8, *spec.shape))
    if spec is ONE_LEVEL:
        assert torch.allclose(x, 2 * torch.special.ndtr(eps) - 1)
    else:
        assert torch.allclose(x, sigma.view(-1, 1, 1, 1) * eps)
        assert sigma[0].item() == pytest.approx(Setting.parse(text, spec.defaults).sigmas[0].item())


@pytest.mark.parametrize("schedule", ["karras", "linear", "cosine", "offset_cosine"])
@pytest.mark.parametrize("sigma", [0.5, 7.0, 25.0])
def test_a_picture_is_restored_from_the_noise_it_is_said_to_have(schedule: str, sigma: float) -> None:
    start = torch.full((8, 1, 4, 4), 0.3)
    setting = Setting.of(ENERGY.defaults, sampler="ddim", steps=5, schedule=schedule, sigma_max=sigma)
    noise = Streams(0, range(8))
    first = next(setting.build(noise, start, classes_of(ENERGY), energy=True, start=start))
    assert torch.equal(first.x, start)
    assert first.sigma.tolist() == [pytest.approx(sigma)] * 8


@pytest.mark.parametrize("steps", range(1, 9))
def test_refining_walks_at_one_level_whatever_levels_are_tuned(steps: int) -> None:
    fields = {"task": "refine", "images": GRAY_4, "steps": steps}
    _, setting = parse(EnergyRequest, fields, text=False).resolved(ENERGY)
    assert setting is not None
    assert (setting.sampler, setting.steps, setting.noise, setting.step_size) == (
        "langevin",
        steps,
        0.0,
        WALK.refine_step_size,
    )
    assert setting.sigma_min == setting.sigma_max == WALK.read_sigma


def test_a_walk_from_level_to_level_cannot_keep_pixels() -> None:
    setting, x = Setting.of(ENERGY.defaults, sampler="langevin"), torch.zeros(1, 1, 4, 4)
    keep = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="cannot keep"):
        setting.build(Streams(0, [0]), x, torch.zeros(1).long(), energy=True, start=x, keep=keep)


@pytest.mark.parametrize(
    ("spec", "given", "field"),
    [
        (DIFFUSION, {"sampler": "langevin"}, "sampler"),
        (DIFFUSION, {"sampler": "heun", "eta": 0.5}, "eta"),
        (DIFFUSION, {"sampler": "ddim", "step_size": 0.5}, "step_size"),
        (DIFFUSION, {"steps": 5000, "schedule": "linear"}, "steps"),
        (DIFFUSION, {"steps": 7, "schedule": "tuned"}, "steps"),
        (DIFFUSION, {"steps": 0}, "steps"),
        (DIFFUSION, {"sampler": "ddim", "eta": 1.5}, "eta"),
        (DIFFUSION, {"guidance": float("nan")}, "guidance"),
        (DIFFUSION, {"sigma_min": 50.0}, "sigma_max"),
        (ENERGY, {"guidance": 2.0}, "guidance"),
        (ENERGY, {"sampler": "mala"}, "sampler"),
        (ENERGY, {"sampler": "langevin", "step_size": -1.0}, "step_size"),
        (ONE_LEVEL, {"sampler": "ddim"}, "sampler"),
        (ONE_LEVEL, {"schedule": "karras"}, "schedule"),
        (ONE_LEVEL, {"sampler": "mala", "noise": 0.5}, "noise"),
    ],
)
def test_what_does_not_fit_is_named(spec: Spec, given: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as refused:
        Setting.of(spec.defaults, **given)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sigma": 0.00200000000000001}, "sigma"),
        ({"sigma": 0.0020000000000001, "steps": 300}, "steps"),
        ({"sigma": 0.0020000000000001, "steps": 300, "sampler": "dpmpp_2m"}, "steps"),
        ({"sigma": 0.5, "schedule": "tuned", "steps": 3}, "schedule"),
    ],
)
def test_a_picture_with_too_little_noise_for_its_steps_is_refused(fields: dict[str, Any], field: str) -> None:
    """Rounding made levels rise there, and the sampler took the root of a negative number."""
    with pytest.raises(BadRequest) as refused:
        parse(EnergyRequest, {"task": "restore", "images": GRAY_4} | fields, text=False).resolved(ENERGY)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("fields", "field", "allowed"),
    [({"sigma": 1.0}, "mask", "a mask"), ({"mask": GRAY_4, "sampler": "ddim"}, "sampler", "langevin")],
)
def test_an_energy_of_one_level_says_what_it_restores(
    fields: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(EnergyRequest, {"task": "restore", "images": GRAY_4} | fields, text=False).resolved(ONE_LEVEL)
    assert (refused.value.field, refused.value.allowed) == (field, allowed)


def test_a_client_is_told_the_same() -> None:
    with pytest.raises(BadRequest) as refused:
        parse(DiffusionRequest, {"sampler": "heun", "eta": 0.5}, text=False).resolved(DIFFUSION)
    assert (refused.value.field, refused.value.allowed) == ("eta", "only with sampler ddim or dpmpp_2m")


def test_the_cost_is_known_before() -> None:
    for spec, text in CASES:
        setting, evaluated = Setting.parse(text, spec.defaults), 0
        model = Known(spec)

        def counting(x: Tensor, sigma: Tensor, y: Tensor, model: nn.Module = model) -> Any:
            nonlocal evaluated
            evaluated += len(x)
            return slope(model, x, sigma, y) if model.energy else model(x, sigma, y)

        like = torch.empty(2, *spec.shape)
        sampler = setting.build(
            Streams(0, range(2)),
            like,
            classes_of(spec)[:2],
            energy=spec.family == "energy",
            no_class=spec.no_class,
        )
        sample(sampler, counting)
        assert evaluated == 2 * setting.nfe, text
