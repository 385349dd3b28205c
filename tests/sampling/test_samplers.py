"""Samplers against mathematics done by hand and against diffusers."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import MEAN, NO_CLASS, STARTS, STD, build, gaussian, ode, silent, two_gaussians
from torch import Tensor

from genserve.sampling.noise import Noise, Streams
from genserve.sampling.samplers import Query, Sampler, ddim, ddpm, dpmpp_2m, heun, sample
from genserve.sampling.schedules import alpha_bar_of, karras, linear, sigma_of
from genserve.sampling.solvers import SAMPLERS
from genserve.sampling.wrappers import guided, watched

# ---- the Gaussian, by hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "error"), [("ddim", 2000, 1e-2), ("heun", 400, 1e-3), ("dpmpp_2m", 400, 1e-3)]
)
def test_deterministic_samplers_follow_the_ode(name: str, n: int, error: float) -> None:
    """The error allowed is in units of STD; x_T lies up to three standard deviations out."""
    x_0 = sample(build(name, STARTS, karras(n)), gaussian)
    assert (x_0 - ode(STARTS, 80, 0)).abs().max() < error * STD


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    """Double the steps: the error falls by 2**order. Levels stop at 0.01: the step to 0 is DDIM's."""

    def error(n: int) -> Tensor:
        levels = karras(n, 0.01)[:-1]
        return (sample(build(name, STARTS, levels), gaussian) - ode(STARTS, 80, 0.01)).abs().max()

    assert (error(512) / error(1024)).log2().item() == pytest.approx(order, abs=0.06)


def test_each_ddim_step_is_its_own_closed_form() -> None:
    """On the Gaussian a step multiplies x - MEAN by (STD^2 + sigma sigma_next) / (STD^2 + sigma^2)."""
    sigmas = karras(7)
    factors = (STD**2 + sigmas[:-1] * sigmas[1:]) / (STD**2 + sigmas[:-1] ** 2)
    x_0 = sample(ddim(STARTS, sigmas, NO_CLASS, noise=silent), gaussian)
    assert torch.allclose(x_0, MEAN + factors.prod() * (STARTS - MEAN), rtol=1e-12)


def test_ddpm_draws_the_gaussian_it_was_given(noise: Noise) -> None:
    n = 20_000
    x_T = 80 * noise(torch.empty(n, dtype=torch.float64))
    x_0 = sample(ddpm(x_T, karras(500), torch.zeros(n), noise=noise), gaussian)
    assert x_0.mean().item() == pytest.approx(MEAN, abs=4 * STD / n**0.5)  # four standard errors
    # four standard errors, and the 1.4 % of 500 steps that go on from D where eq. (7) has x_0 (see below)
    assert x_0.std().item() == pytest.approx(STD, rel=4 / (2 * n) ** 0.5 + 0.014)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_few_noisy_steps_have_the_variance_of_their_closed_form(eta: float, noise: Noise) -> None:
    """A step scales x - MEAN and adds fresh noise, so the variance is known after any number of steps."""
    n, sigmas = 40_000, karras(6, 0.1, 5.0)
    variance = STD**2 + sigmas[0] ** 2
    for sigma, s in pairwise(sigmas):
        fresh = eta * s * (1 - s**2 / sigma**2).sqrt()
        share = STD**2 / (STD**2 + sigma**2)  # of x - MEAN that D keeps
        variance = (share + (s**2 - fresh**2).sqrt() / sigma * (1 - share)) ** 2 * variance + fresh**2
    x_T = MEAN + (STD**2 + sigmas[0] ** 2).sqrt() * noise(torch.empty(n, dtype=torch.float64))
    x_0 = sample(ddim(x_T, sigmas, torch.zeros(n), eta=eta, noise=noise), gaussian)
    assert x_0.var().item() == pytest.approx(variance.item(), rel=4 * (2 / n) ** 0.5)
    assert x_0.mean().item() == pytest.approx(MEAN, abs=4 * (variance.item() / n) ** 0.5)


@pytest.mark.parametrize("t", [2, 10, 500, 1000])
def test_a_ddpm_step_is_the_posterior_of_equation_7(t: int) -> None:
    """Ho et al., eq. 7, in their variance-preserving picture: mean mu_tilde and variance beta_tilde."""
    beta = 1e-4 + (t - 1) * (0.02 - 1e-4) / 999
    alpha_bar_prev, alpha_bar = alpha_bar_of(linear(1000).flip(0)[t - 1 : t + 1]).tolist()
    x_0, x_t = torch.tensor([0.3], dtype=torch.float64), torch.tensor([-1.1], dtype=torch.float64)
    sigmas = sigma_of(torch.tensor([alpha_bar, alpha_bar_prev], dtype=torch.float64))

    def step(z: float) -> float:
        sampler = ddpm(x_t / alpha_bar**0.5, sigmas, NO_CLASS[:1], noise=lambda x: torch.full_like(x, z))
        return sample(sampler, lambda *_: x_0).item() * alpha_bar_prev**0.5

    mu_tilde = (
        alpha_bar_prev**0.5 * beta / (1 - alpha_bar) * x_0
        + (1 - beta) ** 0.5 * (1 - alpha_bar_prev) / (1 - alpha_bar) * x_t
    )
    beta_tilde = (1 - alpha_bar_prev) / (1 - alpha_bar) * beta
    assert step(0) == pytest.approx(mu_tilde.item(), rel=1e-9)
    assert (step(1) - step(0)) ** 2 == pytest.approx(beta_tilde, rel=1e-9)


def test_the_last_step_returns_the_answer_and_draws_nothing() -> None:
    for name in SAMPLERS:
        x_0 = sample(build(name, STARTS, karras(1)), gaussian)
        assert torch.allclose(x_0, gaussian(STARTS, torch.tensor(80.0), NO_CLASS), rtol=1e-12)


def test_consistency_adds_fresh_noise_to_each_answer() -> None:
    """With answers of 0 what is left is the noise itself: its stream's k-th draw at level k."""
    queries: list[Tensor] = []

    def blank(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        queries.append(x)
        return torch.zeros_like(x)

    noise, again = Streams(0, range(3)), Streams(0, range(3))
    sigmas = torch.tensor([80.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    assert torch.equal(sample(build("consistency", STARTS, sigmas, noise=noise), blank), torch.zeros(3))
    expected = [STARTS, 2 * again(STARTS), 0.5 * again(STARTS)]
    assert all(torch.equal(x, level) for x, level in zip(queries, expected, strict=True))


def test_consistency_of_a_perfect_model_draws_the_data(noise: Noise) -> None:
    """The end of the Gaussian's path is known, and from one level on every answer is a draw of the data."""

    def end(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return MEAN + STD / (STD**2 + sigma**2).sqrt() * (x - MEAN)

    n = 20_000
    x_T = 80 * noise(torch.empty(n, dtype=torch.float64))
    for levels in ([80.0, 0.0], [80.0, 0.8, 0.0], [80.0, 10.0, 0.3, 0.1, 0.0]):
        sigmas = torch.tensor(levels, dtype=torch.float64)
        x_0 = sample(build("consistency", x_T, sigmas, torch.zeros(n), noise), end)
        assert x_0.mean().item() == pytest.approx(MEAN, abs=5 * STD / n**0.5)
        assert x_0.std().item() == pytest.approx(STD, rel=5 / (2 * n) ** 0.5)


def test_run_takes_no_gradient() -> None:
    weight = torch.ones((), requires_grad=True)
    x_0 = sample(heun(STARTS, karras(3), NO_CLASS), lambda x, sigma, y: weight * gaussian(x, sigma, y))
    assert not x_0.requires_grad


@pytest.mark.parametrize("name", SAMPLERS)
def test_queries_carry_the_levels_of_the_schedule(name: str) -> None:
    """Each level above 0 is asked for once; Heun asks at the far end of every step but the last as well."""
    queries: list[Query] = []
    sigmas = karras(5)
    sampler = build(name, STARTS, sigmas, NO_CLASS + 4, Streams(0, range(3)))
    sample(watched(sampler, lambda query, _: queries.append(query)), gaussian)
    levels = sigmas[:-1].tolist()
    expected = [levels[(k + 1) // 2] for k in range(9)] if name == "heun" else levels
    assert [query.sigma.tolist() for query in queries] == [[sigma] * 3 for sigma in expected]
    assert all(query.y.tolist() == [4, 4, 4] for query in queries)
    assert torch.equal(queries[0].x, STARTS)


# ---- one seed, one image -----------------------------------------------------------------------------------


def image(seed: int, indices: list[int], name: str, guidance: float | None = None) -> Tensor:
    noise = Streams(seed, indices)
    sigmas = karras(12)
    x_t = sigmas[0].item() * noise(torch.empty(len(indices), 1, 2, 2, dtype=torch.float64))
    sampler = build(name, x_t, sigmas, torch.zeros(len(indices), dtype=torch.long), noise)
    if guidance is not None:
        sampler = guided(sampler, guidance, no_class=1)
    return sample(sampler, lambda x, sigma, y: two_gaussians(x.flatten(1).T, sigma, y).T.view_as(x))


@pytest.mark.parametrize("guidance", [None, 2.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_depends_on_its_seed_and_index_alone(name: str, guidance: float | None) -> None:
    batch = image(3, [0, 1, 2, 3], name, guidance)
    assert torch.equal(batch, image(3, [0, 1, 2, 3], name, guidance))  # the same seed repeats
    assert torch.equal(batch[2:3], image(3, [2], name, guidance))  # alone as in a batch
    assert torch.equal(batch, image(3, list(range(9)), name, guidance)[:4])  # more images keep the first ones
    assert torch.equal(batch.flip(0), image(3, [3, 2, 1, 0], name, guidance))  # in any order
    others = [image(4, [0], name, guidance), image(3 + 2**32, [0], name, guidance), batch[1:2]]
    for other in others:
        assert (other != batch[:1]).all()


# ---- against diffusers -------------------------------------------------------------------------------------

N_STEPS = 20  # divides 1000: diffusers looks T // n timesteps back, whatever the spacing


def eps_model(x_vp: Tensor, alpha_bar: Tensor) -> Tensor:
    """The exact eps of N(0, 1), and a bend that no Gaussian has: any smooth function will do."""
    return (1 - alpha_bar).sqrt() * x_vp + 0.3 * alpha_bar.sqrt() * torch.sin(4 * x_vp)


def as_denoiser(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """The same network as D, by the change of variables x_vp = x / sqrt(1 + sigma^2)."""
    sigma = sigma.view(-1, 1)
    return x_t - sigma * eps_model(x_t / (1 + sigma**2).sqrt(), alpha_bar_of(sigma))


def theirs(scheduler: Any, x: Tensor, **arguments: Callable[[], Any]) -> Tensor:
    """Run a diffusers scheduler with the alpha_bar of DDPM in float64; it keeps them in float32 itself."""
    scheduler.alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    scheduler.set_timesteps(N_STEPS)
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = linear(N_STEPS)
    for t in scheduler.timesteps:
        eps = eps_model(x, scheduler.alphas_cumprod[t])
        step = {name: draw() for name, draw in arguments.items()}
        x = scheduler.step(eps, t, x, **step).prev_sample
    return x


def common(**settings: Any) -> dict[str, Any]:
    return {"beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing", **settings}


@pytest.fixture
def x_vp() -> Tensor:
    return Streams(0, range(4))(torch.empty(4, 5, dtype=torch.float64))


def ours(sampler: Callable[..., Sampler], x_vp: Tensor, **settings: Any) -> Tensor:
    sigmas = linear(N_STEPS)
    return sample(
        sampler(x_vp * (1 + sigmas[0] ** 2).sqrt(), sigmas, torch.zeros(4), **settings), as_denoiser
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers(eta: float, x_vp: Tensor) -> None:
    from diffusers import DDIMScheduler

    one, other = Streams(1, range(4)), Streams(1, range(4))
    scheduler = DDIMScheduler(**common(clip_sample=False))
    expected = theirs(scheduler, x_vp, eta=lambda: eta, variance_noise=lambda: one(x_vp) if eta else None)
    assert torch.allclose(ours(ddim, x_vp, eta=eta, noise=other), expected, rtol=1e-8, atol=1e-8)


def test_ddpm_is_that_of_diffusers(x_vp: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    one, other = Streams(1, range(4)), Streams(1, range(4))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: one(x_vp))
    scheduler = DDPMScheduler(**common(clip_sample=False, variance_type="fixed_small"))
    expected = theirs(scheduler, x_vp)
    # 1e-8: where the variance is 0, on the last step, diffusers adds noise of std 1e-10
    assert torch.allclose(ours(ddpm, x_vp, noise=other), expected, rtol=1e-8, atol=1e-8)


def test_dpmpp_2m_is_that_of_diffusers(x_vp: Tensor) -> None:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(**common(algorithm_type="dpmsolver++", solver_type="midpoint"))
    # diffusers takes every one of the 20 steps in float32, which resolves 6e-8
    assert torch.allclose(ours(dpmpp_2m, x_vp, noise=silent), theirs(scheduler, x_vp), rtol=0, atol=2e-6)


def test_dpmpp_2m_with_noise_is_the_sde_solver_of_diffusers(x_vp: Tensor) -> None:
    from diffusers import DPMSolverMultistepScheduler

    one, other = Streams(1, range(4)), Streams(1, range(4))
    kind = {"algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint"}
    expected = theirs(DPMSolverMultistepScheduler(**common(**kind)), x_vp, variance_noise=lambda: one(x_vp))
    result = ours(dpmpp_2m, x_vp, eta=1.0, noise=other)
    assert torch.allclose(result, expected, rtol=0, atol=2e-6)
    assert not torch.allclose(result, ours(dpmpp_2m, x_vp, noise=silent), atol=0.1)
