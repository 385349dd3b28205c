"""Samplers against mathematics done by hand and against diffusers; the denoiser against EDM's table."""

import math
import statistics
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from genserve.models.denoiser import Denoiser, denoising_loss, training_sigmas
from genserve.sampling.noise import Noise, Streams
from genserve.sampling.samplers import Query, Sampler, ddim, ddpm, dpmpp_2m, heun, sample
from genserve.sampling.schedules import alpha_bar_of, karras, linear, sigma_of
from genserve.sampling.solvers import SAMPLERS, SOLVERS, sampler_named
from genserve.sampling.wrappers import guided, guided_model, watched

MEAN, STD = 0.7, 0.2
STARTS = 80 * torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)  # x_T of three "images" of one pixel
NO_CLASS = torch.zeros(3, dtype=torch.long)


def gaussian(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """E[x_0 | x_t] for x_0 ~ N(MEAN, STD**2): exact, so every error left is the sampler's."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x_t - MEAN)


def ode(x: Tensor, sigma: float, to: float, mean: float = MEAN) -> Tensor:
    """The probability-flow ODE of the Gaussian solved by hand: x - MEAN scales with the std of x_t."""
    return mean + math.hypot(STD, to) / math.hypot(STD, sigma) * (x - mean)


def silent(x: Tensor) -> Tensor:
    raise AssertionError("this sampler draws no noise")


def build(name: str, x: Tensor, sigmas: Tensor, y: Tensor = NO_CLASS, noise: Noise = silent) -> Sampler:
    return sampler_named(name, x, sigmas, y, noise=noise)


# ---- the Gaussian, by hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "error"), [("ddim", 2000, 1e-2), ("heun", 400, 1e-3), ("dpmpp_2m", 400, 1e-3)]
)
def test_deterministic_samplers_follow_the_ode(name: str, n: int, error: float):
    """The error allowed is in units of STD; x_T lies up to three standard deviations out."""
    x_0 = sample(build(name, STARTS, karras(n)), gaussian)
    assert (x_0 - ode(STARTS, 80, 0)).abs().max() < error * STD


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(name: str, order: int):
    """Double the steps: the error falls by 2**order. Levels stop at 0.01: the step to 0 is DDIM's."""

    def error(n: int) -> Tensor:
        levels = karras(n, 0.01)[:-1]
        return (sample(build(name, STARTS, levels), gaussian) - ode(STARTS, 80, 0.01)).abs().max()

    assert (error(512) / error(1024)).log2().item() == pytest.approx(order, abs=0.06)


def test_each_ddim_step_is_its_own_closed_form():
    """On the Gaussian a step multiplies x - MEAN by (STD^2 + sigma sigma_next) / (STD^2 + sigma^2)."""
    sigmas = karras(7)
    factors = (STD**2 + sigmas[:-1] * sigmas[1:]) / (STD**2 + sigmas[:-1] ** 2)
    x_0 = sample(ddim(STARTS, sigmas, NO_CLASS, noise=silent), gaussian)
    assert torch.allclose(x_0, MEAN + factors.prod() * (STARTS - MEAN), rtol=1e-12)


def test_ddpm_draws_the_gaussian_it_was_given(noise: Noise):
    n = 20_000
    x_T = 80 * noise(torch.empty(n, dtype=torch.float64))
    x_0 = sample(ddpm(x_T, karras(500), torch.zeros(n), noise=noise), gaussian)
    assert x_0.mean().item() == pytest.approx(MEAN, abs=4 * STD / n**0.5)  # four standard errors
    # four standard errors, and the 1.4 % of 500 steps that go on from D where eq. (7) has x_0 (see below)
    assert x_0.std().item() == pytest.approx(STD, rel=4 / (2 * n) ** 0.5 + 0.014)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_few_noisy_steps_have_the_variance_of_their_closed_form(eta: float, noise: Noise):
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
def test_a_ddpm_step_is_the_posterior_of_equation_7(t: int):
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


def test_the_last_step_returns_the_answer_and_draws_nothing():
    for name in SAMPLERS:
        x_0 = sample(build(name, STARTS, karras(1)), gaussian)
        assert torch.allclose(x_0, gaussian(STARTS, torch.tensor(80.0), NO_CLASS), rtol=1e-12)


# ---- against diffusers -------------------------------------------------------------------------------------

N_STEPS = 20  # divides 1000: diffusers looks T // n timesteps back, whatever the spacing


def eps_model(x_vp: Tensor, alpha_bar: Tensor) -> Tensor:
    """The exact eps of N(0, 1), and a bend that no Gaussian has: any smooth function will do."""
    return (1 - alpha_bar).sqrt() * x_vp + 0.3 * alpha_bar.sqrt() * torch.sin(4 * x_vp)


def as_denoiser(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """The same network as D, by the change of variables x_vp = x / sqrt(1 + sigma^2)."""
    sigma = sigma.view(-1, 1)
    return x_t - sigma * eps_model(x_t / (1 + sigma**2).sqrt(), alpha_bar_of(sigma))


def theirs(scheduler, x: Tensor, **arguments) -> Tensor:
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


def common(**settings):
    return {"beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing", **settings}


@pytest.fixture
def x_vp() -> Tensor:
    return Streams(0, range(4))(torch.empty(4, 5, dtype=torch.float64))


def ours(sampler: Callable[..., Sampler], x_vp: Tensor, **settings) -> Tensor:
    sigmas = linear(N_STEPS)
    return sample(
        sampler(x_vp * (1 + sigmas[0] ** 2).sqrt(), sigmas, torch.zeros(4), **settings), as_denoiser
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers(eta: float, x_vp: Tensor):
    from diffusers import DDIMScheduler

    one, other = Streams(1, range(4)), Streams(1, range(4))
    scheduler = DDIMScheduler(**common(clip_sample=False))
    expected = theirs(scheduler, x_vp, eta=lambda: eta, variance_noise=lambda: one(x_vp) if eta else None)
    assert torch.allclose(ours(ddim, x_vp, eta=eta, noise=other), expected, rtol=1e-8, atol=1e-8)


def test_ddpm_is_that_of_diffusers(x_vp: Tensor, monkeypatch: pytest.MonkeyPatch):
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    one, other = Streams(1, range(4)), Streams(1, range(4))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: one(x_vp))
    scheduler = DDPMScheduler(**common(clip_sample=False, variance_type="fixed_small"))
    expected = theirs(scheduler, x_vp)
    # 1e-8: where the variance is 0, on the last step, diffusers adds noise of std 1e-10
    assert torch.allclose(ours(ddpm, x_vp, noise=other), expected, rtol=1e-8, atol=1e-8)


def test_dpmpp_2m_is_that_of_diffusers(x_vp: Tensor):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(**common(algorithm_type="dpmsolver++", solver_type="midpoint"))
    # diffusers takes every one of the 20 steps in float32, which resolves 6e-8
    assert torch.allclose(ours(dpmpp_2m, x_vp, noise=silent), theirs(scheduler, x_vp), rtol=0, atol=2e-6)


def test_dpmpp_2m_with_noise_is_the_sde_solver_of_diffusers(x_vp: Tensor):
    from diffusers import DPMSolverMultistepScheduler

    one, other = Streams(1, range(4)), Streams(1, range(4))
    kind = {"algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint"}
    expected = theirs(DPMSolverMultistepScheduler(**common(**kind)), x_vp, variance_noise=lambda: one(x_vp))
    found = ours(dpmpp_2m, x_vp, eta=1.0, noise=other)
    assert torch.allclose(found, expected, rtol=0, atol=2e-6)
    assert not torch.allclose(found, ours(dpmpp_2m, x_vp, noise=silent), atol=0.1)


# ---- samplers around samplers, and by name -----------------------------------------------------------------


def two_gaussians(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """Class 0 is N(MEAN, STD**2); "no class", which is 1, is N(-0.5, STD**2)."""
    mean = torch.where(y == 0, MEAN, -0.5)
    return mean + STD**2 / (STD**2 + sigma**2) * (x_t - mean)


@pytest.mark.parametrize("name", SAMPLERS)
def test_guidance_1_is_the_class_and_guidance_0_is_no_class(name: str):
    def drawn(y: int, guidance: float | None = None) -> Tensor:
        sampler = build(name, STARTS, karras(9), torch.full((3,), y), Streams(0, range(3)))
        return sample(sampler if guidance is None else guided(sampler, guidance, no_class=1), two_gaussians)

    assert torch.equal(drawn(0, guidance=1), drawn(0))
    assert torch.equal(drawn(0, guidance=0), drawn(1))
    assert (drawn(0) - drawn(1)).abs().min() > 0.5  # and they are not all one


@pytest.mark.parametrize("guidance", [0.5, 3.0])
def test_guidance_between_gaussians_is_a_gaussian_further_out(guidance: float):
    """D_w is linear in the means, so it is the exact denoiser of N(m + w (MEAN - m), STD^2)."""
    sampler = guided(heun(STARTS, karras(400), NO_CLASS), guidance, no_class=1)
    mean = -0.5 + guidance * (MEAN + 0.5)
    exact = ode(STARTS, 80, 0, mean=mean)
    assert (sample(sampler, two_gaussians) - exact).abs().max() < 1e-3 * STD
    model = guided_model(two_gaussians, guidance, no_class=1)
    sigma = torch.tensor([0.1, 2.0, 40.0], dtype=STARTS.dtype)
    posterior = mean + STD**2 / (STD**2 + sigma**2) * (STARTS - mean)
    torch.testing.assert_close(model(STARTS, sigma, NO_CLASS), posterior, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_evaluations_are_counted_and_guidance_doubles_the_batch(name: str, n: int):
    batches: list[int] = []

    def counting(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        assert len(x) == len(sigma) == len(y)
        batches.append(len(x))
        return two_gaussians(x, sigma, y)

    nfe = 2 * n - 1 if name == "heun" else n
    sample(build(name, STARTS, karras(n), noise=Streams(0, range(3))), counting)
    assert batches == [3] * nfe
    assert SOLVERS[name].evaluations(n) == nfe
    batches.clear()
    sample(guided(build(name, STARTS, karras(n), noise=Streams(0, range(3))), 2.0, no_class=1), counting)
    assert batches == [6] * nfe


@pytest.mark.parametrize("name", SAMPLERS)
def test_queries_carry_the_levels_of_the_schedule(name: str):
    """Each level above 0 is asked for once; Heun asks at the far end of every step but the last as well."""
    seen: list[Query] = []
    sigmas = karras(5)
    sampler = build(name, STARTS, sigmas, NO_CLASS + 4, Streams(0, range(3)))
    sample(watched(sampler, lambda query, _: seen.append(query)), gaussian)
    levels = sigmas[:-1].tolist()
    asked = [levels[(k + 1) // 2] for k in range(9)] if name == "heun" else levels
    assert [query.sigma.tolist() for query in seen] == [[sigma] * 3 for sigma in asked]
    assert all(query.y.tolist() == [4, 4, 4] for query in seen)
    assert torch.equal(seen[0].x, STARTS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_watching_sees_every_evaluation_and_changes_nothing(name: str):
    asked: list[tuple[Tensor, Tensor]] = []
    seen: list[tuple[Tensor, Tensor]] = []

    def model(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        x_0 = gaussian(x, sigma, y)
        asked.append((x, x_0))
        return x_0

    unwatched = sample(build(name, STARTS, karras(9), noise=Streams(0, range(3))), gaussian)
    sampler = build(name, STARTS, karras(9), noise=Streams(0, range(3)))
    x_0 = sample(watched(sampler, lambda query, answer: seen.append((query.x, answer))), model)
    assert torch.equal(x_0, unwatched)
    assert all(a is c and b is d for (a, b), (c, d) in zip(asked, seen, strict=True))


def test_consistency_noises_each_answer_anew():
    """With answers of 0 what is left is the noise itself: its stream's k-th draw at level k."""
    asked: list[Tensor] = []

    def blank(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        asked.append(x)
        return torch.zeros_like(x)

    noise, again = Streams(0, range(3)), Streams(0, range(3))
    sigmas = torch.tensor([80.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    assert torch.equal(sample(build("consistency", STARTS, sigmas, noise=noise), blank), torch.zeros(3))
    expected = [STARTS, 2 * again(STARTS), 0.5 * again(STARTS)]
    assert all(torch.equal(x, level) for x, level in zip(asked, expected, strict=True))


def test_consistency_of_a_perfect_model_draws_the_data(noise: Noise):
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


def test_eta_reaches_ddim_and_dpmpp_2m_alone():
    def drawn(name: str, eta: float) -> Tensor:
        return sample(
            sampler_named(name, STARTS, karras(5), NO_CLASS, eta=eta, noise=Streams(0, range(3))), gaussian
        )

    assert torch.equal(drawn("ddim", 1.0), drawn("ddpm", 0.0))
    assert not torch.equal(drawn("ddim", 0.5), drawn("ddim", 0.0))
    assert not torch.equal(drawn("dpmpp_2m", 0.5), drawn("dpmpp_2m", 0.0))
    for name in ("ddpm", "heun", "consistency"):
        assert torch.equal(drawn(name, 0.0), drawn(name, 1.0))


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="ddim, ddpm, heun, dpmpp_2m, consistency, got 'euler'"):
        build("euler", STARTS, karras(5))


def test_run_takes_no_gradient():
    weight = torch.ones((), requires_grad=True)
    x_0 = sample(heun(STARTS, karras(3), NO_CLASS), lambda x, sigma, y: weight * gaussian(x, sigma, y))
    assert not x_0.requires_grad


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
def test_an_image_depends_on_its_seed_and_index_alone(name: str, guidance: float | None):
    batch = image(3, [0, 1, 2, 3], name, guidance)
    assert torch.equal(batch, image(3, [0, 1, 2, 3], name, guidance))  # the same seed repeats
    assert torch.equal(batch[2:3], image(3, [2], name, guidance))  # alone as in a batch
    assert torch.equal(batch, image(3, list(range(9)), name, guidance)[:4])  # more images keep the first ones
    assert torch.equal(batch.flip(0), image(3, [3, 2, 1, 0], name, guidance))  # in any order
    others = [image(4, [0], name, guidance), image(3 + 2**32, [0], name, guidance), batch[1:2]]
    for other in others:
        assert (other != batch[:1]).all()


# ---- the trained denoiser ----------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Answers with one number everywhere and remembers what it was shown."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, c_noise: Tensor, y: Tensor) -> Tensor:
        self.x, self.c_noise, self.y = x, c_noise, y
        return torch.full_like(x, self.answer)


@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 10.0, 80.0])
def test_the_network_sees_and_is_asked_for_unit_variance_at_every_level(sigma: float, noise: Noise):
    n = 20_000
    coin = torch.arange(n).remainder(2).double() * 2 - 1  # far from Gaussian, and of exactly this std
    x_0 = (MEAN + STD * coin).view(n, 1, 1, 1)
    eps = noise(x_0)
    level = torch.full((n,), sigma, dtype=torch.float64)
    x_t = x_0 + sigma * eps
    low, high = Recorder(0.0), Recorder(1.0)
    y = torch.arange(n)
    base = Denoiser(low, MEAN, STD)(x_t, level, y)
    c_out = Denoiser(high, MEAN, STD)(x_t, level, y) - base
    target = (x_0 - base) / c_out  # the F that would make D exact
    # the square of a coin plus a Gaussian varies less than a Gaussian's: sqrt(2 / n) is an upper bound
    assert target.var().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert target.mean().item() == pytest.approx(0, abs=4 / n**0.5)
    assert low.x.var().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert low.x.mean().item() == pytest.approx(0, abs=4 / n**0.5)
    assert torch.allclose(low.c_noise, torch.tensor(math.log(sigma) / 4, dtype=torch.float64))
    assert torch.equal(low.y, y)


def test_the_weight_of_the_loss_makes_it_the_networks_own_squared_error(noise: Noise):
    """Whatever F answers, and at every level: lambda(sigma) |D - x_0|^2 = |F - target|^2."""
    x_0 = MEAN + STD * noise(torch.empty(6, 1, 4, 4, dtype=torch.float64))
    sigma = torch.logspace(-3, 2, 6, dtype=torch.float64)
    eps, y = noise(x_0), torch.zeros(6, dtype=torch.long)
    x_t = x_0 + sigma.view(-1, 1, 1, 1) * eps
    base = Denoiser(Recorder(0.0), MEAN, STD)(x_t, sigma, y)
    c_out = Denoiser(Recorder(1.0), MEAN, STD)(x_t, sigma, y) - base
    squared = (0.4 - (x_0 - base) / c_out).square().flatten(1).mean(1)
    loss = denoising_loss(Denoiser(Recorder(0.4), MEAN, STD), x_0, sigma, y, eps, STD)
    assert torch.allclose(loss, squared, rtol=1e-9)


def test_an_untrained_denoiser_is_the_exact_one_of_a_gaussian(noise: Noise):
    """A silent F leaves c_skip: the posterior mean if all one knew were mean and std."""
    sigma = torch.logspace(-3, 3, 20, dtype=torch.float64)
    x_t = noise(torch.empty(20, 1, 2, 2, dtype=torch.float64)) * sigma.view(-1, 1, 1, 1)
    silent_net = Denoiser(Recorder(0.0), MEAN, STD)(x_t, sigma, torch.zeros(20))
    assert torch.allclose(silent_net, gaussian(x_t, sigma.view(-1, 1, 1, 1), NO_CLASS), rtol=1e-12)


def test_a_denoiser_keeps_a_clean_image_and_forgets_a_drowned_one():
    """At sigma -> 0 D(x) -> x whatever F says; at large sigma D is within F's reach, STD, of the mean."""
    x, y = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1, torch.zeros(2)
    denoiser = Denoiser(Recorder(1.0), MEAN, STD)
    near, far = (denoiser(x, torch.full((2,), s, dtype=torch.float64), y) for s in (1e-8, 1e8))
    assert (near - x).abs().max() < 1e-7
    assert torch.allclose(far, torch.full_like(x, MEAN + STD), rtol=1e-7)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_denoiser_of_constant_data_is_refused(std: float):
    with pytest.raises(ValueError, match="std must be above 0"):
        Denoiser(nn.Identity(), 0.0, std)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_the_loss_of_the_exact_denoiser_is_one_and_that_of_no_denoiser_more(sigma: float, noise: Noise):
    """Posterior variance STD^2 sigma^2 / (STD^2 + sigma^2) times the weight is 1; D = x errs by sigma^2."""
    n = 40_000
    x_0 = MEAN + STD * noise(torch.empty(n, 1, 1, 1, dtype=torch.float64))
    level, y, eps = torch.full((n,), sigma, dtype=torch.float64), torch.zeros(n), noise(x_0)

    def exact(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return gaussian(x_t, sigma.view(-1, 1, 1, 1), y)

    loss = denoising_loss(exact, x_0, level, y, eps, STD).mean().item()
    assert loss == pytest.approx(1, abs=4 * (2 / n) ** 0.5)  # each is chi squared with one degree of freedom
    loss = denoising_loss(lambda x, sigma, y: x, x_0, level, y, eps, STD).mean().item()
    assert loss == pytest.approx(1 + (sigma / STD) ** 2, rel=4 * (2 / n) ** 0.5)


def test_training_sigmas_are_log_normal_with_one_in_each_quantile(noise: Noise):
    u = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = training_sigmas(u, 0.3, 1.4)
    normal = statistics.NormalDist(0.3, 1.4)
    quantiles = [64 * normal.cdf(math.log(s)) for s in sigma.tolist()]
    assert quantiles == pytest.approx((torch.arange(64) + u).tolist(), rel=1e-9)


def test_training_sigmas_are_finite_at_the_ends_of_the_unit_interval():
    ends = torch.tensor([0.0, math.nextafter(1.0, 0.0)])  # float32: the second rounds to 1
    for batch in (ends[:1], ends[1:], ends.repeat(64)):
        sigma = training_sigmas(batch, -1.2, 1.2)
        assert sigma.isfinite().all()
        assert (sigma > 0).all()
