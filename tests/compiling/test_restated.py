"""A network in other operations is the same function, at every noise level and for every class."""

import pytest
import torch
from real_server import ROOT
from small_networks import network, question
from torch import Tensor, nn

from genserve.compiling.restated import Restated
from genserve.models.denoiser import Denoiser
from genserve.runs.compiled import columns
from genserve.runs.directory import load_model, model_config
from genserve.sampling.samplers import Query

LEVELS = (0.002, 0.02, 0.2, 1.0, 5.0, 20.0, 80.0)


def every_level_and_class(run: str) -> Query:
    """Return noisy images as bright and as varied as those of a run, of all its classes and of none."""
    config = model_config(ROOT / "weights" / run)
    n = len(config.classes) + 1
    sigma, y = torch.tensor(LEVELS).repeat_interleave(n), torch.arange(n).repeat(len(LEVELS))
    noise = torch.randn(len(y), *config.shape, generator=torch.Generator().manual_seed(0))
    return Query(config.mean + (sigma**2 + config.std**2).sqrt().view(-1, 1, 1, 1) * noise, sigma, y)


@torch.no_grad()
def both(trained: nn.Module, query: Query) -> tuple[Tensor, Tensor]:
    """Return the answers of the network restated, and its own."""
    return Restated(trained)(**columns(query)), trained(*query)


@pytest.mark.parametrize("run", ["diffusion-mnist", "diffusion-cifar10", "consistency-mnist"])
def test_a_denoiser_restated_is_the_trained_one(run: str) -> None:
    result, expected = both(load_model(ROOT / "weights" / run), every_level_and_class(run))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    assert expected.flatten(1).std(1).min() > 0.01


def test_an_energy_restated_is_the_trained_one() -> None:
    """Relative to what it is: a sum over all pixels."""
    run = "energy-mnist"
    result, expected = both(load_model(ROOT / "weights" / run), every_level_and_class(run))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("energy", ["", "residual"])
def test_so_is_one_without_any_silent_weight(energy: str) -> None:
    result, expected = both(network(energy), question(30))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_its_weights_are_the_network_s_own() -> None:
    trained = network()
    shared = {weight.data_ptr() for weight in trained.parameters()}
    assert {weight.data_ptr() for weight in Restated(trained).parameters()} == shared


@pytest.mark.parametrize(
    "other",
    [network("plain"), Denoiser(nn.Conv2d(1, 1, 3), 0.0, 1.0), network().net, nn.Linear(2, 2)],
    ids=lambda other: type(other).__name__,
)
def test_another_network_is_refused(other: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"{type(other).__name__} is no network of a denoiser and a UNet"):
        Restated(other)
