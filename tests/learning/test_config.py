"""The settings that training programs share: what they may be, and how many steps they make."""

from typing import Any

import pytest
import torch

from genserve.learning.config import DenoiserConfig, GeneratorConfig, check_levels
from genserve.learning.ranks import Ranks


def ranks(size: int = 1) -> Ranks:
    return Ranks(0, size, torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": " "}, "name must not be empty"),
        ({"precision": "fp16"}, "precision must be one of auto, bf16, fp32, got 'fp16'"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, got 'tpu'"),
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"lr": float("inf")}, "lr must be above 0, got inf"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        ({"grad_clip": 0.0}, "grad_clip must be above 0, got 0.0"),
        ({"sample_every": 0}, "sample_every must be above 0, got 0"),
        ({"p_std": 0.0}, "p_std must be above 0, got 0.0"),
        ({"label_dropout": 1.0}, r"label_dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_a_setting_out_of_its_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenoiserConfig(**{"name": "some"} | settings)


@pytest.mark.parametrize("levels", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, float("inf"))])
def test_noise_levels_rise_from_above_zero(levels: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="sigma_min must be above 0 and below sigma_max"):
        check_levels(*levels)


def test_an_epoch_is_cut_short_and_never_empty() -> None:
    config = GeneratorConfig(name="some", batch_size=8)
    assert config.batches(31, ranks()) == 3
    assert GeneratorConfig(name="some", batch_size=8, max_batches_per_epoch=2).batches(31, ranks()) == 2
    with pytest.raises(ValueError, match="batch_size 8 is more than the 7 images"):
        config.batches(7, ranks())
    with pytest.raises(ValueError, match="batch_size 8 must be a multiple of the 3 ranks"):
        config.batches(31, ranks(3))
