"""Sets of images that are known to be good or bad are measured as that."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from real_server import ROOT

from genserve import data
from genserve.data import DataConfig, ImageSet
from genserve.measure.classifier import features_of, load_classifier
from genserve.measure.reference import Space


def known_sets(train: ImageSet, test: ImageSet, n: int) -> dict[str, torch.Tensor]:
    """Return n images each: real ones seen and unseen, and three that went wrong in a known way."""
    x, rng = test.x[:n], torch.Generator().manual_seed(0)
    spread = 40 * torch.randn(x.shape, generator=rng)
    return {
        "training": train.x[-n:],
        "held-out": x,
        "blurred": F.avg_pool2d(x.float(), 3, 1, padding=1).round().byte(),
        "one class missing": test.x[test.y != 1][:n],
        "noisy": (x + spread).clamp(0, 255).byte(),
        "noise": torch.randint(0, 256, x.shape, generator=rng, dtype=torch.uint8),
    }


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_known_sets_come_in_the_order_they_must_have(name: str, request: pytest.FixtureRequest) -> None:
    config = DataConfig(name=name, root=str(ROOT / "data"), download=False)
    if name == "mnist" and not (ROOT / "data/MNIST").is_dir():
        pytest.skip("MNIST is not in data/")
    directory = (
        ROOT / "weights/classifier-mnist" if name == "mnist" else request.getfixturevalue("classifier")
    )
    network, train, test = load_classifier(directory), *(data.load(config, s) for s in ("train", "test"))
    space = Space(lambda x, chunks: features_of(network, x, chunks), train.x[:1000])
    found = {}
    for what, x in known_sets(train, test, 250).items():
        found[what] = space.measure(space.features(x))

    def rises(key: str, *names: str) -> bool:
        return all(found[a][key] < found[b][key] for a, b in pairwise(names))

    for distance in ("frechet_distance", "kernel_distance"):
        for wrong in ("blurred", "one class missing", "noisy"):
            assert rises(distance, "held-out", wrong, "noise")
    assert rises("frechet_distance", "training", "held-out")
    for share in ("precision", "density"):
        assert rises(share, "noise", "noisy", "held-out")
    for share in ("density", "recall", "coverage"):
        assert rises(share, "blurred", "held-out")
    assert rises("coverage", "noise", "held-out")
    missing, held_out = found["one class missing"], found["held-out"]
    assert missing["precision"] == pytest.approx(held_out["precision"], abs=0.03)  # what is there is good
    if name == "mnist":  # the classifier of the digits has learnt for seconds only
        assert missing["recall"] < held_out["recall"] - 0.05
        assert missing["coverage"] < held_out["coverage"] - 0.02
