"""What an energy is asked for, as samplers: draw, score, refine, restore, explain."""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from genserve.api_energy import EnergyRequest
from genserve.diffusion import SAMPLERS, Query, Sampler, See, level, sampler_named, watched
from genserve.energy import Slope, annealed, denoise, denoised, kept, langevin, mala
from genserve.export import Spec, Walk
from genserve.images import heat
from genserve.noise import Streams, uniform
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
        keep: which of their pixels stay, (1, H, W) bool; none where there is no mask.
        see: watches the way.
    """
    walk, n = _set(spec.walk), request.num_samples
    nobody = torch.full((n,), spec.no_class, device=device)
    read_at = walk.read_sigma if request.task in ("sample", "restore") else _set(request.sigma)
    x = torch.empty(n, *spec.shape, device=device) if sent is None else sent.to(device)

    def note(slope: Slope, when: str = "") -> None:
        energies = [round(e, 4) for e in slope.energy.tolist()]
        notes[f"energy{when}"] = energies
        if walk.energies and read_at == walk.read_sigma:  # the training images were read like that
            notes[f"rank{when}"] = [walk.rank(e) for e in energies]

    if request.task in ("score", "explain"):
        slope = yield Query(x, level(read_at, x), nobody)
        note(slope)
        return heat(x, slope.gradient) if request.task == "explain" else x
    if request.task == "refine":
        note((yield Query(x, level(read_at, x), nobody)), "_before")
    y = torch.tensor(request.label, device=device) if request.label else nobody
    way = _Way(request, spec, walk, y, keep, see, notes)
    x = yield from (way.at_one_level(x) if request.task == "refine" or walk.plain else way.through_levels(x))
    note((yield Query(x, level(read_at, x), nobody)))
    return x


def _set(value: T | None) -> T:
    """Return what a resolved request has filled in."""
    assert value is not None
    return value


@dataclass(frozen=True)
class _Way:
    """From where a request starts to its pictures."""

    request: EnergyRequest
    spec: Spec
    walk: Walk
    y: Tensor
    keep: Tensor | None
    see: See | None
    notes: Notes

    def at_one_level(self, x: Tensor) -> Sampler:
        """From pictures, or from uniform noise in their place or where the mask is black."""
        request, keep = self.request, self.keep
        noise = Streams(_set(request.seed), request.indices)
        if request.task == "sample":
            x = uniform(noise, x)
        elif keep is not None:
            x = torch.where(keep, x, uniform(noise, x))
        start, sigma, steps = x, _set(request.sigma), _set(request.steps)
        step_size = _set(request.step_size) * sigma**2

        def inside(x: Tensor) -> Tensor:
            x = x.clamp(-1, 1)
            return x if keep is None else torch.where(keep, start, x)

        if request.sampler == "mala":
            taken: list[Tensor] = []
            chain = mala(
                x, sigma, self.y, steps=steps, step_size=step_size, noise=noise, accepted=taken.append
            )
            x = yield from self._watched(chain)
            self.notes["acceptance"] = [round(t, 4) for t in torch.stack(taken).float().mean(0).tolist()]
            return x
        walk = langevin(
            x,
            sigma,
            self.y,
            steps=steps,
            step_size=step_size,
            noise_std=None if request.noise is None else request.noise * sigma,
            gradient_max=self.walk.gradient_max or math.inf,
            inside=inside,
            noise=noise,
        )
        x = yield from self._watched(walk)
        return x

    def through_levels(self, x: Tensor) -> Sampler:
        """From noise; where pictures shall be restored that no mask came with, from those."""
        request, spec = self.request, self.spec
        noise = Streams(_set(request.seed), request.indices)
        noisy = request.task == "restore" and self.keep is None
        top = _set(request.sigma) if noisy else spec.sigma_max
        sigmas = levels(_set(request.schedule), _set(request.steps), spec.sigma_min, top, spec.tuned)
        x_t = x if noisy else top * noise(x)
        if request.sampler not in SAMPLERS:
            size = _set(request.step_size)
            return self._watched(
                annealed(x_t, sigmas, self.y, step_size=size, noise_std=request.noise, noise=noise)
            )
        plain = sampler_named(_set(request.sampler), x_t, sigmas, self.y, eta=request.eta or 0.0, noise=noise)
        inner = watched(plain, self.see) if self.see else plain
        return denoised(inner if self.keep is None else kept(inner, x, self.keep))

    def _watched(self, sampler: Sampler) -> Sampler:
        """The same sampler of slopes, watched by what wants to see guesses of x_0."""
        see = self.see
        return watched(sampler, lambda query, slope: see(query, denoise(query, slope))) if see else sampler
