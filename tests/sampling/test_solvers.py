"""The table of samplers: names, costs, and what each takes."""

import pytest
import torch
from exact import NO_CLASS, STARTS, build, gaussian, two_gaussians
from torch import Tensor

from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample
from genserve.sampling.schedules import karras
from genserve.sampling.solvers import SAMPLERS, SOLVERS, sampler_named
from genserve.sampling.wrappers import guided


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_evaluations_are_counted_and_guidance_doubles_the_batch(name: str, n: int) -> None:
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


def test_eta_reaches_ddim_and_dpmpp_2m_alone() -> None:
    def drawn(name: str, eta: float) -> Tensor:
        return sample(
            sampler_named(name, STARTS, karras(5), NO_CLASS, eta=eta, noise=Streams(0, range(3))), gaussian
        )

    assert torch.equal(drawn("ddim", 1.0), drawn("ddpm", 0.0))
    assert not torch.equal(drawn("ddim", 0.5), drawn("ddim", 0.0))
    assert not torch.equal(drawn("dpmpp_2m", 0.5), drawn("dpmpp_2m", 0.0))
    for name in ("ddpm", "heun", "consistency"):
        assert torch.equal(drawn(name, 0.0), drawn(name, 1.0))


def test_an_unknown_sampler_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="ddim, ddpm, heun, dpmpp_2m, consistency, got 'euler'"):
        build("euler", STARTS, karras(5))
