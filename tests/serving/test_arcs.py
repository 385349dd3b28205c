"""The way of a walk, between the codes of two pictures."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genserve.serving.jobs.latents import on_the_arc


@given(st.integers(0, 1000), st.floats(0.1, 3), st.floats(0.1, 3), st.integers(2, 9))
def test_an_arc_turns_evenly_and_its_lengths_go_evenly(seed: int, of_a: float, of_b: float, n: int) -> None:
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a, b = of_a * a / a.norm(), of_b * b / b.norm()
    points = on_the_arc(a, b, torch.linspace(0, 1, n, dtype=torch.float64))
    torch.testing.assert_close(points[0], a)
    torch.testing.assert_close(points[-1], b)
    torch.testing.assert_close(points.norm(dim=1), torch.linspace(of_a, of_b, n, dtype=torch.float64))
    directions = points / points.norm(dim=1, keepdim=True)
    angles = torch.acos((directions[1:] * directions[:-1]).sum(1).clamp(-1, 1))
    torch.testing.assert_close(angles, angles.mean().expand(n - 1), rtol=0, atol=1e-6)


def test_an_arc_between_opposite_or_equal_points_is_a_line() -> None:
    a: Tensor = torch.tensor([1.0, 2.0])
    for b in (a, -a, torch.zeros(2)):
        points = on_the_arc(a, b, torch.linspace(0, 1, 3))
        torch.testing.assert_close(points[0], a)
        torch.testing.assert_close(points[2], b)
        assert points.isfinite().all()
