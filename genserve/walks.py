"""What an energy is asked for, as samplers: draw, score, refine, restore, explain."""

import math
from typing import TypeVar

import torch
from torch import Tensor

from genserve.api_energy import EnergyRequest
from genserve.diffusion import SAMPLERS, Query, Sampler, See, level, sampler_named, watched
from genserve.energy import Slope, annealed, denoise, denoised, kept, langevin, mala
from genserve.export import Spec, Walk
from genserve.images import heat
from genserve.noise import Noise, Streams, uniform
from genserve.replies import Notes
from genserve.schedules import levels

T = TypeVar("T")


def answering(
    request: EnergyRequest,
    spec: Spec,
    device: torch.device,
    sent: Tensor | None,
    keep: Tensor | None,
    see: See | None,
    notes: Notes,
) -> Sampler:
    """The sampler of a resolved request: goes where its task says, and reads the energy where it ends.

    Energies are read without a class, so that they compare with each other and with the training images'.
    They go into notes, with their ranks.

    Args:
        sent: the pictures that came along, (N, C, H, W).
        keep: which of their pixels stay, (1, H, W) bool; none restores all of them from noise.
        see: watches the way.
    """
    walk, n = spec.walk, request.num_samples
    assert walk is not None
    nobody = torch.full((n,), spec.no_class, device=device)
    y = torch.tensor(request.label, device=device) if request.label else nobody
    drawing = request.task in ("sample", "restore")
    read_at = walk.read_sigma if drawing else _set(request.sigma)
    x = torch.empty(n, *spec.shape, device=device) if sent is None else sent.to(device)

    if request.task in ("refine", "score", "explain"):
        slope = yield Query(x, level(read_at, x), nobody)
        if request.task != "refine":
            _note(slope, walk, notes, ranked=read_at == walk.read_sigma)
            return heat(x, slope.gradient) if request.task == "explain" else x
        _note(slope, walk, notes, "_before", ranked=read_at == walk.read_sigma)
    noise = Streams(_set(request.seed), request.indices)
    if request.task == "refine" or walk.plain:
        x = yield from _at_one_level(request, spec, x, keep, y, see, noise)
    else:
        x = yield from _from_noise(request, spec, x, keep, y, see, noise)
    slope = yield Query(x, level(read_at, x), nobody)
    _note(slope, walk, notes, ranked=read_at == walk.read_sigma)
    return x


def _note(slope: Slope, walk: Walk, notes: Notes, when: str = "", *, ranked: bool) -> None:
    """Write down energies, for JSON and headers; and ranks, where the training images were read like that."""
    energies = [round(e, 4) for e in slope.energy.tolist()]
    notes[f"energy{when}"] = energies
    if walk.energies and ranked:
        notes[f"rank{when}"] = [walk.rank(e) for e in energies]


def _set(value: T | None) -> T:
    """Return what a resolved request has filled in."""
    assert value is not None
    return value


def _at_one_level(
    request: EnergyRequest,
    spec: Spec,
    x: Tensor,
    keep: Tensor | None,
    y: Tensor,
    see: See | None,
    noise: Noise,
) -> Sampler:
    """Langevin dynamics from pictures, or from uniform noise in their place or where the mask is black."""
    sigma, steps = _set(request.sigma), _set(request.steps)
    if request.task == "sample":
        x = uniform(noise, x)
    elif keep is not None:
        x = torch.where(keep, x, uniform(noise, x))
    known = x

    def inside(x: Tensor) -> Tensor:
        x = x.clamp(-1, 1)
        return x if keep is None else torch.where(keep, known, x)

    size = _set(request.step_size) * sigma**2
    if request.sampler == "mala":
        sampler = mala(x, sigma, y, steps=steps, step_size=size, noise=noise)
    else:
        sampler = langevin(
            x,
            sigma,
            y,
            steps=steps,
            step_size=size,
            noise_std=None if request.noise is None else request.noise * sigma,
            gradient_max=_set(spec.walk).gradient_max or math.inf,
            inside=inside,
            noise=noise,
        )
    return _watched(sampler, see)


def _from_noise(
    request: EnergyRequest,
    spec: Spec,
    x: Tensor,
    keep: Tensor | None,
    y: Tensor,
    see: See | None,
    noise: Noise,
) -> Sampler:
    """A diffusion sampler or annealed Langevin dynamics, from noise or from pictures as noisy as they are."""
    given = request.task == "restore" and keep is None
    top = _set(request.sigma) if given else spec.sigma_max
    sigmas = levels(_set(request.schedule), _set(request.steps), spec.sigma_min, top)
    x_t = x if given else top * noise(x)
    if request.sampler not in SAMPLERS:
        sampler = annealed(
            x_t, sigmas, y, step_size=_set(request.step_size), noise_std=request.noise, noise=noise
        )
        return _watched(sampler, see)
    plain = sampler_named(_set(request.sampler), x_t, sigmas, y, eta=request.eta or 0.0, noise=noise)
    inner = watched(plain, see) if see else plain
    return denoised(inner if keep is None else kept(inner, x, keep))


def _watched(sampler: Sampler, see: See | None) -> Sampler:
    """The same sampler of slopes, watched by what wants to see guesses of x_0."""
    return watched(sampler, lambda query, slope: see(query, denoise(query, slope))) if see else sampler
