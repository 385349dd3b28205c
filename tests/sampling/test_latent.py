"""What truncation and temperature do to noise."""

import math

import pytest
import torch

from genserve.sampling.latent import CHANGES, change_in, tempered, truncated


def test_truncated_noise_is_normal_between_its_limits() -> None:
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    cut = truncated(z, 1.0)
    assert cut.abs().max() <= 1
    inside = z[z.abs() <= 1]  # what drawing again would leave
    for q in (0.05, 0.3, 0.5, 0.8, 0.99):
        assert cut.quantile(q).item() == pytest.approx(inside.quantile(q).item(), abs=0.01)
    assert (cut.sign() == z.sign()).all()
    order = z.argsort()
    assert (cut[order].diff() >= 0).all()


def test_truncation_far_out_changes_nothing() -> None:
    z = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(truncated(z, 8.0), z, rtol=1e-5, atol=1e-6)
    assert torch.equal(truncated(z, float("inf")), z)
    assert truncated(torch.tensor([9.0, -9.0, 0.0]), 0.5).tolist() == pytest.approx(
        [0.5, -0.5, 0.0], abs=1e-6
    )


def test_a_temperature_is_the_standard_deviation() -> None:
    z = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    assert tempered(z, 0.7).std().item() == pytest.approx(0.7, rel=0.01)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_has_a_number_that_changes_nothing(name: str) -> None:
    z = torch.randn(100)
    assert torch.equal(CHANGES[name].apply(z, CHANGES[name].none), z)


def test_a_setting_is_read_from_text() -> None:
    assert change_in("truncation=0.7", "truncation") == 0.7
    assert change_in("truncation=inf", "truncation") == math.inf
    for text in (
        "ddim:50",
        "truncation",
        "truncation=",
        "truncation=x",
        "truncation=0",
        "truncation=-1",
        "truncation=nan",
        "temperature=1",
    ):
        with pytest.raises(ValueError, match=r"is truncation=VALUE with a value above 0; got "):
            change_in(text, "truncation")
