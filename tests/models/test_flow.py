"""The flow is exact both ways, and its log determinant is that of its Jacobian."""

import math

import pytest
import torch
from torch import nn

from genserve.models.flow import Flow, log_normal


@pytest.fixture
def flow() -> Flow:
    """A flow with random weights, in float64."""
    torch.manual_seed(0)
    net = Flow(6, 3, couplings=4, hidden=16).double()
    with torch.no_grad():
        for p in net.parameters():
            p += 0.3 * torch.randn_like(p)
    return net


ONE_HOT = torch.eye(3, dtype=torch.float64)[[0, 2, 1, 1]]


def test_a_flow_is_undone_by_its_inverse(flow: Flow) -> None:
    z = torch.randn(4, 6, dtype=torch.float64)
    eps, _ = flow(z, ONE_HOT)
    assert (eps - z).abs().max() > 0.1
    torch.testing.assert_close(flow.inverse(eps, ONE_HOT), z)
    torch.testing.assert_close(flow(flow.inverse(z, ONE_HOT), ONE_HOT)[0], z)


def test_the_log_determinant_is_that_of_the_jacobian(flow: Flow) -> None:
    z = torch.randn(4, 6, dtype=torch.float64)
    _, log_det = flow(z, ONE_HOT)
    for k in range(4):
        one = ONE_HOT[k : k + 1]
        jacobian = torch.autograd.functional.jacobian(lambda v, one=one: flow(v[None], one)[0][0], z[k])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[k])


@pytest.mark.parametrize("dim", [6, 64])
def test_two_couplings_move_every_number(dim: int) -> None:
    torch.manual_seed(0)
    flow = Flow(dim, 1, couplings=2, hidden=16)
    for coupling in flow.couplings:
        nn.init.normal_(coupling.net[-1].weight)
    z, one = torch.randn(dim), torch.ones(1, 1)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v[None], one)[0][0], z)
    assert ((jacobian != 0).sum(1) > 1).all()


def test_the_class_changes_every_number(flow: Flow) -> None:
    z = torch.randn(1, 6, dtype=torch.float64)
    assert (flow(z, ONE_HOT[:1])[0] - flow(z, ONE_HOT[1:2])[0]).abs().min() > 1e-6


def test_a_fresh_flow_only_permutes() -> None:
    flow, z = Flow(8, 1, couplings=3, hidden=4), torch.randn(5, 8)
    eps, log_det = flow(z, torch.ones(5, 1))
    assert torch.equal(eps.sort(1).values, z.sort(1).values)
    assert not log_det.any()


def test_the_normal_density_is_its_formula() -> None:
    eps = torch.randn(4, 5, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(eps).sum(1)
    torch.testing.assert_close(log_normal(eps), expected.double())
    assert log_normal(torch.zeros(1, 2)).item() == pytest.approx(-math.log(2 * math.pi))


def test_an_odd_number_of_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="even number of dimensions, got 7"):
        Flow(7, 1, couplings=1, hidden=4)
