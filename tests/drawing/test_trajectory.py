"""The looks of a sampler, on denoisers and energies in closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from genserve.drawing.local import draw
from genserve.drawing.trajectory import moments, plane, slopes, trajectory
from genserve.runs.contract import Spec
from genserve.sampling.samplers import Query
from genserve.sampling.settings import Setting

SHAPE = (1, 4, 4)


class Known(nn.Module):
    """A denoiser that always answers 0.5; as an energy, |x|**2 / 2."""

    def __init__(self, energy: bool = False) -> None:
        super().__init__()
        self.energy, self.unused = energy, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1) / 2 if self.energy else torch.full_like(x, 0.5)


def looks_at(sigmas: list[float], n: int = 1) -> list[Query]:
    x = torch.arange(n * 16.0).view(n, *SHAPE) / 16
    return [Query(x * s, torch.full((n,), s), torch.zeros(n, dtype=torch.long)) for s in sigmas]


@pytest.mark.parametrize("text", ["ddim:6", "heun:6", "dpmpp_2m:6:guidance=2"])
def test_a_trajectory_has_one_look_per_level_and_the_images_of_draw(text: str) -> None:
    config = Spec(
        name="m", family="diffusion", shape=SHAPE, classes=("a", "b"), sigma_min=0.1, sigma_max=10.0
    )
    setting, y = Setting.parse(text, config.defaults), torch.tensor([0, 1, 0])
    x, looks = trajectory(Known(), config, setting, y, seed=5)
    assert torch.equal(x, draw(Known(), config, setting, y, seed=5))
    assert [look.sigma[0].item() for look in looks] == pytest.approx(setting.sigmas[:-1].tolist())
    assert all(look.x.shape == (3, *SHAPE) for look in looks)
    # the ODE of a denoiser that knows the answer is a straight line
    eps = (looks[0].x - 0.5) / 10
    for look in looks:
        torch.testing.assert_close(look.x, 0.5 + look.sigma[0] * eps, rtol=1e-4, atol=1e-5)


def test_moments_lie_at_even_angles_and_a_walk_s_at_even_logarithms() -> None:
    angles = [1.5 - 0.01 * k for k in range(149)]
    picked = moments(looks_at([math.tan(a) for a in angles]), 5)
    assert picked == [0, 30, 60, 90, 120]
    assert moments(looks_at([1.0] * 255), 8) == [0, 1, 3, 7, 15, 31, 63, 127]
    assert moments(looks_at([2.0, 1.0, 0.5]), 7) == [0, 1, 2]  # there are no more


def test_a_plane_goes_through_the_chain_and_reads_the_energy_there() -> None:
    looks = looks_at([4.0, 2.0])
    ends = torch.zeros(3, 16)
    ends[1, 0] = ends[2, 1] = 3.0
    result = plane(Known(energy=True), looks, 1, ends.view(3, *SHAPE), no_class=0, n=9)
    rest = looks[1].x.flatten()[2:].square().sum()  # outside the plane
    expected = (result.u[None, :] ** 2 + result.v[:, None] ** 2 + rest) / 2
    torch.testing.assert_close(result.energy, expected)
    torch.testing.assert_close(result.path.abs(), torch.stack([q.x.flatten()[:2] for q in looks]))
    torch.testing.assert_close(result.ends.norm(dim=1), torch.tensor([0.0, 3.0, 3.0]))


def test_slopes_are_those_of_the_energy() -> None:
    looks = looks_at([2.0, 1.0], n=2)
    energies, lengths = slopes(Known(energy=True), looks)
    torch.testing.assert_close(energies, lengths.square() / 2)
    torch.testing.assert_close(energies[0], looks[0].x.square().flatten(1).sum(1) / 2)
