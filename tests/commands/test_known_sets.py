"""Sets of images that are known to be good or bad are measured as that, by classifier and judge."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from real_server import ROOT
from torch import Tensor

from genserve.data.pictures import DataConfig, ImageSet, load_images
from genserve.measure.features import features_of
from genserve.measure.reference import Space
from genserve.runs.directory import load_classifier

# How many times further than held-out images the same images are with noise of std 10 of 255. The classifier
# nearly forgives it, having been trained on warped images; a digit of 8 x 8 pixels has 17 gray levels.
FAINT = {"classifier-mnist": 1.01, "judge-mnist": 1.7, "digits": 0.0}


def split(name: str, which: str) -> ImageSet:
    """Return scikit-learn's digits, or the sample of MNIST that lies beside the tests."""
    if name == "digits":
        return load_images(DataConfig(name="digits"), which)
    sample = np.load(ROOT / "tests/mnist/sample.npz")
    x, y = (torch.from_numpy(sample[f"{which}_{part}"]) for part in "xy")
    return ImageSet(x.unsqueeze(1), y.long(), tuple("0123456789"))


def known_sets(train: ImageSet, test: ImageSet, n: int) -> dict[str, Tensor]:
    """Return n images each: real ones seen and unseen, and some that went wrong in a known way."""
    x, rng = test.x[:n], torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=rng)

    def noisy(std: float) -> Tensor:
        return (x + std * noise).round().clamp(0, 255).byte()

    return {
        "training": train.x[-n:],
        "held-out": x,
        "faintly noisy": noisy(10),
        "blurred": F.avg_pool2d(x.float(), 3, 1, padding=1).round().byte(),
        "one class missing": test.x[test.y != 1][:n],
        "noisy": noisy(40),
        "noise": torch.randint(0, 256, x.shape, generator=rng, dtype=torch.uint8),
    }


@pytest.mark.parametrize("name", FAINT)
def test_known_sets_come_in_the_order_they_must_have(name: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue("classifier") if name == "digits" else ROOT / "weights" / name
    network, train, test = load_classifier(directory), split(name, "train"), split(name, "test")
    space = Space(lambda x, chunks: features_of(network, x, chunks), train.x[:1000])
    measured = {key: space.measure(space.features(x)) for key, x in known_sets(train, test, 250).items()}

    def rises(key: str, *names: str) -> bool:
        return all(measured[a][key] < measured[b][key] for a, b in pairwise(names))

    for distance in ("frechet_distance", "kernel_distance"):
        for wrong in ("blurred", "one class missing", "noisy"):
            assert rises(distance, "held-out", wrong, "noise"), (distance, wrong)
    if (
        name == "digits"
    ):  # of which 250 are a seventh; of MNIST, chance in the shares of classes counts for more
        assert rises("frechet_distance", "training", "held-out")
    for share in ("precision", "density"):
        assert rises(share, "noise", "noisy", "held-out"), share
    for share in ("density", "recall", "coverage"):
        assert rises(share, "blurred", "held-out"), share
    assert rises("coverage", "noise", "held-out")
    missing, held_out = measured["one class missing"], measured["held-out"]
    assert missing["precision"] == pytest.approx(held_out["precision"], abs=0.03)  # what is there is good
    times = measured["faintly noisy"]["frechet_distance"] / held_out["frechet_distance"]
    assert times > FAINT[name]
    if name != "digits":  # whose classifier has learnt for seconds only
        assert missing["recall"] < held_out["recall"] - 0.05
        assert missing["coverage"] < held_out["coverage"] - 0.02


def test_the_sample_is_of_mnist_and_the_judge_is_not_the_classifier() -> None:
    """Both are right about the sample's held-out digits, and see them differently."""
    test = split("mnist", "test")
    assert len(split("mnist", "train")) == 1250
    features = {}
    for name in ("classifier-mnist", "judge-mnist"):
        network = load_classifier(ROOT / "weights" / name)
        features[name] = features_of(network, test.x)
        assert (network.logits(features[name]).argmax(1) == test.y).float().mean() > 0.98
    assert {name: f.shape[1] for name, f in features.items()} == {"classifier-mnist": 128, "judge-mnist": 64}
