"""Diffusion with one clock, the noise level sigma: x_t = x_0 + sigma * eps.

    model      (x_t, sigma, y) -> E[x_0 | x_t], the denoiser
    schedule   n + 1 falling sigmas, the last one 0 (genserve.schedules)
    sampler    a generator: yields a Query, is sent the model's answer, returns x_0

The network's output, the score and the classic eps are views of the same answer D:

    eps = (x_t - D) / sigma,    score = (D - x_t) / sigma**2,    dx_t / dsigma = eps  (probability-flow ODE).

Source: Karras et al. 2022 (arXiv:2206.00364). The alpha_bar of DDPM is 1 / (1 + sigma**2).
"""

import math
from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genserve.sampling.noise import Noise


class Query(NamedTuple):
    """Where a sampler wants the model's answer."""

    x: Tensor  # (B, C, H, W), x_t at unit data scale
    sigma: Tensor  # (B,), the noise level of each image, in the data's units ([-1, 1])
    y: Tensor  # (B,) int64, the class of each image; n_classes means "no class"


Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, sigma, y) -> E[x_0 | x_t], all as in Query
Sampler = Generator[Query, Any, Tensor]  # sent the model's answer, here x_0; see genserve.energy for another
See = Callable[[Query, Any], None]  # is shown a query and its answer, here the current guess of x_0


@torch.no_grad()
def run(sampler: Sampler, model: Callable[[Tensor, Tensor, Tensor], Any]) -> Tensor:
    """Drive one sampler to its end and return x_0, (B, C, H, W)."""
    query = next(sampler)
    while True:
        try:
            query = sampler.send(model(*query))
        except StopIteration as end:
            x_0: Tensor = end.value
            return x_0


# ---- samplers ----------------------------------------------------------------------------------------------
# x_t is (B, C, H, W) at sigmas[0]; sigmas (n + 1,) fall to 0; y is (B,). A step's coefficients
# are Python floats: in a crowd of small requests, arithmetic on 0-dimensional tensors is a tenth of the work.


def level(sigma: float, x: Tensor) -> Tensor:
    """Return the noise level of every image of x, (B,)."""
    return x.new_full((len(x),), sigma)


def ddim(x_t: Tensor, sigmas: Tensor, y: Tensor, *, eta: float = 0.0, noise: Noise) -> Sampler:
    """DDIM at eta = 0, DDPM at eta = 1; nfe = n. eta = 0 draws no noise.

    Source: Song et al. 2021 (arXiv:2010.02502), eqs. (12) and (16), rewritten in sigma.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_0 = yield Query(x_t, level(sigma, x_t), y)
        x_t = _lowered(x_t, x_0, sigma, sigma_next, eta, noise)
    return x_t


def _lowered(x_t: Tensor, x_0: Tensor, sigma: float, sigma_next: float, eta: float, noise: Noise) -> Tensor:
    """Return the image at sigma_next that comes of x_t at sigma and x_0; a share of its noise is fresh."""
    fresh = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)  # std of the new noise
    # x_0 + sqrt(sigma_next**2 - fresh**2) * eps, where eps = (x_t - x_0) / sigma
    x_t = x_0.lerp(x_t, math.sqrt(sigma_next**2 - fresh**2) / sigma)
    return x_t.add(noise(x_t), alpha=fresh) if fresh > 0 else x_t


def ddpm(x_t: Tensor, sigmas: Tensor, y: Tensor, *, noise: Noise) -> Sampler:
    """Ancestral sampling from the posterior q(x_s | x_t, x_0) with its own variance; nfe = n.

    Source: Ho et al. 2020 (arXiv:2006.11239), eqs. (6) and (7), the "small" variance.
    """
    return ddim(x_t, sigmas, y, eta=1.0, noise=noise)


def heun(x_t: Tensor, sigmas: Tensor, y: Tensor) -> Sampler:
    """Heun's second-order method on the probability-flow ODE; nfe = 2 n - 1.

    Source: Karras et al. 2022, algorithm 1.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_0 = yield Query(x_t, level(sigma, x_t), y)
        slope = (x_t - x_0) / sigma
        x_next = x_t + (sigma_next - sigma) * slope
        if sigma_next > 0:
            x_0 = yield Query(x_next, level(sigma_next, x_t), y)
            slope = (slope + (x_next - x_0) / sigma_next) / 2
            x_next = x_t + (sigma_next - sigma) * slope
        x_t = x_next
    return x_t


def dpmpp_2m(x_t: Tensor, sigmas: Tensor, y: Tensor, *, eta: float = 0.0, noise: Noise) -> Sampler:
    """DPM-Solver++(2M): second order, one evaluation a step; nfe = n. The last step returns the answer.

    It is DDIM whose x_0 is extrapolated to the middle of the step: eta = 0 draws no noise, eta = 1 is the
    multistep solver of the reverse SDE.

    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2 and, for eta = 1, appendix A, with alpha = 1 and
    lambda = -log sigma.
    """
    before: tuple[Tensor, float] | None = None  # the step before this one: its answer and its h
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_0: Tensor = yield Query(x_t, level(sigma, x_t), y)
        if sigma_next == 0:
            return x_0
        h = math.log(sigma / sigma_next)
        ahead = x_0
        if before is not None:
            x_0_before, h_before = before
            ahead = x_0 + h / (2 * h_before) * (x_0 - x_0_before)
        x_t = _lowered(x_t, ahead, sigma, sigma_next, eta, noise)
        before = x_0, h
    return x_t


def consistency(x_t: Tensor, sigmas: Tensor, y: Tensor, *, noise: Noise) -> Sampler:
    """Take each answer for the image and noise it anew at the next level; nfe = n. For distilled models.

    Source: Song et al. 2023 (arXiv:2303.01469), algorithm 1.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_t = yield Query(x_t, level(sigma, x_t), y)
        if sigma_next > 0:
            x_t = x_t.add(noise(x_t), alpha=sigma_next)
    return x_t


SAMPLERS = ("ddim", "ddpm", "heun", "dpmpp_2m", "consistency")
TAKE_ETA = ("ddim", "dpmpp_2m")


def sampler_named(
    name: str, x_t: Tensor, sigmas: Tensor, y: Tensor, *, eta: float = 0.0, noise: Noise
) -> Sampler:
    """Return a sampler by its name; eta is for those in TAKE_ETA.

    Raises:
        ValueError: the name is not in SAMPLERS.
    """
    match name:
        case "ddim":
            return ddim(x_t, sigmas, y, eta=eta, noise=noise)
        case "ddpm":
            return ddpm(x_t, sigmas, y, noise=noise)
        case "heun":
            return heun(x_t, sigmas, y)
        case "dpmpp_2m":
            return dpmpp_2m(x_t, sigmas, y, eta=eta, noise=noise)
        case "consistency":
            return consistency(x_t, sigmas, y, noise=noise)
    raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")


def evaluations(name: str, n: int) -> int:
    """Return how often a named sampler asks the model over n steps, without guidance."""
    return 2 * n - 1 if name == "heun" else n


# ---- samplers around samplers ------------------------------------------------------------------------------


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

    return lambda x, sigma, y: run(guided(once(Query(x, sigma, y)), guidance, no_class), model)


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


# ---- the trained denoiser ----------------------------------------------------------------------------------


class Denoiser(nn.Module):
    """D(x, sigma, y) = mean + c_skip (x - mean) + c_out F(c_in (x - mean), ln(sigma) / 4, y).

    F then sees inputs and is asked for targets of unit variance at every noise level. Subtracting the data's
    mean matters where it is far from 0: on MNIST it is -0.74.

    Args:
        net: F, (x (B, C, H, W), c_noise (B,), y (B,)) -> (B, C, H, W).
        mean, std: of all pixels of the data, in [-1, 1] units.

    Source: Karras et al. 2022, eq. (7) and table 1 (EDM), with the mean made explicit.
    """

    def __init__(self, net: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        self.net = net
        self.mean = float(mean)
        self.std = float(std)

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """Return E[x_0 | x] (B, C, H, W) for x (B, C, H, W), sigma (B,) above 0, y (B,) int64."""
        s = sigma.view(-1, 1, 1, 1)
        total = (s**2 + self.std**2).sqrt()
        centred = x - self.mean
        out = self.net(centred / total, sigma.log() / 4, y).to(x.dtype)
        x_0: Tensor = self.mean + (self.std / total) ** 2 * centred + (s * self.std / total) * out
        return x_0


def denoising_loss(
    model: Model,
    x_0: Tensor,
    sigma: Tensor,
    y: Tensor,
    eps: Tensor,
    std: float,
    teacher: Model | None = None,
) -> Tensor:
    """Return the denoising error of each image, (B,), weighted so that F's error counts alike at every sigma.

    Args:
        x_0: (B, C, H, W), data in [-1, 1];  sigma, y: (B,);  eps: standard normal like x_0;
        std: of the data.
        teacher: a trained denoiser to be matched instead of x_0, whose expectation it is: the same minimum
            as far as the teacher is right, with nearly none of the noise.

    Source: Karras et al. 2022, eq. (2) with the weight of table 1.
    """
    weight = (sigma**2 + std**2) / (sigma * std) ** 2
    x_t = x_0 + sigma.view(-1, 1, 1, 1) * eps
    with torch.no_grad():
        target = x_0 if teacher is None else teacher(x_t, sigma, y)
    error = model(x_t, sigma, y) - target
    return weight * error.square().flatten(1).mean(1)


def training_sigmas(u: Tensor, p_mean: float, p_std: float) -> Tensor:
    """Return noise levels, (B,), ln sigma ~ N(p_mean, p_std**2), one from each of B equal quantiles.

    Args:
        u: (B,) uniform in [0, 1); shuffled strata come from the order of the images, which is already random.

    Source: Karras et al. 2022, table 1; stratified as Kingma et al. 2021 (arXiv:2107.00630), appendix I.1.
    """
    quantile = ((torch.arange(len(u), device=u.device) + u) / len(u)).clamp(1e-6, 1 - 1e-6)
    return torch.exp(p_mean + p_std * math.sqrt(2) * torch.erfinv(2 * quantile - 1))
