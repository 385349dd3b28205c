"""Samplers around samplers: guidance, watching, an energy as a denoiser, pixels that are known."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genserve.sampling.langevin import Slope
from genserve.sampling.noise import Noise
from genserve.sampling.samplers import Model, Query, Sampler, See, sample


def guided(sampler: Sampler, guidance: float, no_class: int) -> Sampler:
    """Guide a sampler toward its class, without a classifier; nfe doubles.

    A query goes out with and without class and comes back combined.

    Args:
        guidance: w in D_w = D(no class) + w (D(class) - D(no class)); 1 is the conditional model itself.
        no_class: the y that means "no class", n_classes of the model.

    Source: Ho & Salimans 2022 (arXiv:2207.12598); w here is 1 + w there.
    """
    try:
        query = next(sampler)
        while True:
            x, sigma, y = query
            pair = torch.cat([y, torch.full_like(y, no_class)])
            answer = yield Query(torch.cat([x, x]), torch.cat([sigma, sigma]), pair)
            with_class, without = answer.chunk(2)
            query = sampler.send(torch.lerp(without, with_class, guidance))
    except StopIteration as end:
        x_0: Tensor = end.value
        return x_0


def guided_model(model: Model, guidance: float, no_class: int) -> Model:
    """Return the guided denoiser D_w as a plain model, to use as a teacher."""

    def once(query: Query) -> Sampler:
        answer: Tensor = yield query
        return answer

    return lambda x, sigma, y: sample(guided(once(Query(x, sigma, y)), guidance, no_class), model)


def watched(sampler: Sampler, see: See) -> Sampler:
    """Pass every query with its answer to `see` and change nothing. Watch inside guidance, not around it."""
    try:
        query = next(sampler)
        while True:
            x_0 = yield query
            see(query, x_0)
            query = sampler.send(x_0)
    except StopIteration as end:
        result: Tensor = end.value
        return result


def watched_slopes(sampler: Sampler, see: See) -> Sampler:
    """Watch a sampler that is sent slopes; `see` gets the guess of x_0 that each of them makes."""
    return watched(sampler, lambda query, slope: see(query, denoise(query, slope)))


def denoised(sampler: Sampler) -> Sampler:
    """Run a diffusion sampler on an energy: it is sent slopes and gets denoised images from them."""
    try:
        query = next(sampler)
        while True:
            slope: Slope = yield query
            query = sampler.send(denoise(query, slope))
    except StopIteration as end:
        x_0: Tensor = end.value
        return x_0


def denoise(query: Query, slope: Slope) -> Tensor:
    """Return E[x_0 | x], (B, C, H, W), by Tweedie's formula."""
    return query.x - query.sigma.view(-1, 1, 1, 1) ** 2 * slope.gradient


def inpainted(sampler: Sampler, known: Tensor, keep: Tensor) -> Sampler:
    """Run a diffusion sampler that fills in: every guess of x_0 has the known pixels, and so the result.

    Args:
        known: (B, C, H, W), in [-1, 1].
        keep: bool, which pixels of it count, of a shape that broadcasts to that of known.

    Source: Wang et al. 2023, DDNM (arXiv:2212.00490), eq. (13) for inpainting.
    """
    try:
        query = next(sampler)
        while True:
            x_0 = yield query
            query = sampler.send(torch.where(keep, known, x_0))
    except StopIteration as end:
        result: Tensor = end.value
        return result


def resampled(
    solve: Callable[[Tensor, Tensor], Sampler],
    x_t: Tensor,
    sigmas: Tensor,
    *,
    times: int,
    noise: Noise,
) -> Sampler:
    """Run every step several times, with fresh noise up to its first level in between; nfe as many times.

    Plain inpainting corrects a step toward the known pixels only after it is done. Here the next run of the
    same step starts from the corrected image, so that both parts agree.

    Args:
        solve: (x_t, sigmas) -> the sampler from x_t at the first of these levels to the last one.
        x_t: (B, C, H, W) at sigmas[0];  sigmas: (n + 1,), falling to 0.
        times: how often each step is run, at least 1.

    Source: Lugmayr et al. 2022, RePaint (arXiv:2201.09865), algorithm 1; jumps of one step.
    """
    for step in sigmas.unfold(0, 2, 1):
        high, low = step.tolist()
        for k in range(times):
            x_t = yield from solve(x_t, step)
            if k + 1 < times:
                x_t = x_t.add(noise(x_t), alpha=math.sqrt(high**2 - low**2))
    return x_t
