"""A configuration builds the network of its row, and an unknown one is refused."""

from dataclasses import replace

import pytest
import torch

from genserve.models.config import ModelConfig
from genserve.models.contrastive import ConvEnergy
from genserve.models.denoiser import Denoiser
from genserve.models.energy import ResidualEnergy

UNET = {"patch": 1, "channels": [16, 32], "attention": [4], "heads": 2}
DIFFUSION = ModelConfig(
    family="diffusion",
    shape=(1, 8, 8),
    classes=("a", "b"),
    mean=-0.4,
    std=0.7,
    sigma_min=0.01,
    sigma_max=40.0,
    net=UNET,
)
RESIDUAL = replace(DIFFUSION, family="energy", energy="residual")
PLAIN = replace(DIFFUSION, family="energy", energy="plain", net={"channels": [8]}, classes=())


@pytest.mark.parametrize(
    ("config", "kind", "slopes"),
    [(DIFFUSION, Denoiser, False), (RESIDUAL, ResidualEnergy, True), (PLAIN, ConvEnergy, True)],
)
def test_a_network_has_the_answer_of_its_family(config: ModelConfig, kind: type, slopes: bool) -> None:
    network = config.build()
    assert type(network) is kind
    assert config.kind.slopes == slopes
    answer = network(torch.zeros(3, 1, 8, 8), torch.ones(3), torch.zeros(3, dtype=torch.long))
    assert answer.shape == ((3,) if slopes else (3, 1, 8, 8))


def test_a_denoiser_knows_mean_std_and_classes_of_its_data() -> None:
    network = DIFFUSION.build()
    assert (network.mean, network.std) == (-0.4, 0.7)
    assert network.net.embed_class.num_embeddings == 2 + 1  # and "no class"


@pytest.mark.parametrize(("family", "energy"), [("gan", ""), ("diffusion", "plain"), ("energy", "")])
def test_a_family_without_such_a_network_is_refused(family: str, energy: str) -> None:
    config = replace(DIFFUSION, family=family, energy=energy)
    with pytest.raises(ValueError, match=f"family '{family}' with energy '{energy}' is none this version"):
        config.build()
