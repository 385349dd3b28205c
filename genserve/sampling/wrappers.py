"""Samplers around samplers: guidance, watching, an energy as a denoiser, pixels that are known."""

import torch
from torch import Tensor

from genserve.sampling.langevin import Slope
from genserve.sampling.samplers import Model, Query, Sampler, See, sample


def guided(sampler: Sampler, guidance: float, no_class: int) -> Sampler:
    """Classifier-free guidance: a query goes out with and without class and comes back combined; nfe doubles.

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
    """Return the model that `guided` samplers see: D_w, for whom one answer is to be learnt from."""

    def once(query: Query) -> Sampler:
        answer: Tensor = yield query
        return answer

    return lambda x, sigma, y: sample(guided(once(Query(x, sigma, y)), guidance, no_class), model)


def watched(sampler: Sampler, see: See) -> Sampler:
    """The same sampler; `see` is shown every query with its answer. Watch inside guidance, not around it."""
    try:
        query = next(sampler)
        while True:
            x_0 = yield query
            see(query, x_0)
            query = sampler.send(x_0)
    except StopIteration as end:
        result: Tensor = end.value
        return result


def denoised(sampler: Sampler) -> Sampler:
    """A diffusion sampler on an energy: sent slopes, it sees denoised images."""
    try:
        query = next(sampler)
        while True:
            seen: Slope = yield query
            query = sampler.send(denoise(query, seen))
    except StopIteration as end:
        x_0: Tensor = end.value
        return x_0


def denoise(query: Query, seen: Slope) -> Tensor:
    """Return E[x_0 | x], (B, C, H, W), by Tweedie's formula."""
    return query.x - query.sigma.view(-1, 1, 1, 1) ** 2 * seen.gradient


def inpainted(sampler: Sampler, known: Tensor, keep: Tensor) -> Sampler:
    """A diffusion sampler that fills in: every guess of x_0 has the known pixels, so the answer has them too.

    Args:
        known: (B, C, H, W);  keep: bool, where it counts, of a shape that meets that of known.

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
