"""What a step of training learns from."""

import pytest
import torch

from genserve.data.batches import batch_indices
from genserve.data.pictures import DataConfig, load_images
from genserve.images import normalise
from genserve.learning.config import DenoiserConfig
from genserve.learning.feed import Feed
from genserve.learning.ranks import Ranks


def test_a_feed_hides_the_share_of_classes_that_it_is_told_to() -> None:
    digits = DataConfig(name="digits")
    config = DenoiserConfig(
        name="some", data=digits, batch_size=1000, label_dropout=0.3, p_mean=0.5, p_std=0.7
    )
    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, Ranks(0, 1, torch.device("cpu")))
    noised, _ = feed.noised(3, config, no_class=10)
    hidden = noised.y == 10
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1000) ** 0.5)
    picked = batch_indices(len(dataset), 1000, 1, config.seed, 3)
    assert noised.y[~hidden].equal(dataset.y[picked][~hidden])
    assert noised.x_0.equal(normalise(dataset.x[picked]))
    assert noised.sigma.log().mean().item() == pytest.approx(0.5, abs=0.01)  # stratified
    assert noised.eps.std().item() == pytest.approx(1, abs=0.02)
    without, _ = feed.noised(3, config, no_class=0)
    assert not without.y.any()
