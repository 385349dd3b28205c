"""What images are compared with: scikit-learn's 8 x 8 digits, and a classifier that has learnt nothing."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from genserve import data, metrics, run
from genserve.classifier import ClassifierConfig, features_of, write_stats
from genserve.data import DataConfig, ImageSet
from genserve.reference import Reference

DATA = DataConfig(name="digits")


def images(split: str) -> ImageSet:
    return data.load(DATA, split)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of an untrained classifier: any features will do."""
    directory, dataset = tmp_path_factory.mktemp("classifier"), images("train")
    net = {"patch": 2, "channels": [16, 16], "n_features": 12}
    model = ClassifierConfig(family="classifier", shape=dataset.shape, classes=dataset.classes, net=net)
    torch.manual_seed(0)
    classifier = model.build().requires_grad_(False)
    train = {"data": asdict(DATA)}
    run.write_json(directory / "config.json", {"format": run.FORMAT, "model": asdict(model), "train": train})
    run.write_weights(directory / "weights.safetensors", classifier.state_dict())
    features = (features_of(classifier, images(split).x) for split in ("train", "test"))
    write_stats(directory, *features, dataset.y, len(dataset.classes))
    return directory


@pytest.fixture(scope="module")
def reference(directory: Path) -> Reference:
    return Reference(directory, Path("nowhere"), torch.device("cpu"))  # these digits come with scikit-learn


def test_the_training_set_is_at_no_distance_from_itself_and_a_copy_of_itself(reference: Reference) -> None:
    row = reference.measure(images("train").x, images("train").y)
    assert row["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert row["precision"] == row["recall"] == row["coverage"] == 1
    assert row["copy_distance"] == pytest.approx(0, abs=0.1)


def test_the_nearest_image_of_a_copy_is_its_original(reference: Reference) -> None:
    originals = images("train").x[[5, 1400, 77]]
    distance, found = reference.nearest((originals.int() ^ 1).byte())  # every pixel one gray level off
    assert found.equal(originals)
    assert distance.tolist() == pytest.approx([1, 1, 1], abs=1e-2)


def test_held_out_images_are_spread_over_the_whole_or_come_in_fair_shares(reference: Reference) -> None:
    test, counts = images("test"), images("train").y.bincount()
    plain, fair = reference.held_out(100).values()
    spread = test.x[torch.arange(100) * len(test) // 100]
    assert sorted(plain[0].flatten(1).tolist()) == sorted(spread.flatten(1).tolist())
    missing = 100 * counts / counts.sum() - fair[1].bincount(minlength=10)
    assert missing.min() >= 0
    assert missing.max() < 1
    assert len(reference.held_out(10**6)["held-out images"][0]) == len(test)
    assert len(reference.held_out(10**6)["held-out, in fair shares"][0]) < len(test)


def test_the_moments_give_the_floor_that_the_images_give(reference: Reference) -> None:
    row = reference.measure(images("test").x, None)
    assert reference.floor() == {"n": 297, "frechet_distance": pytest.approx(row["frechet_distance"])}
    assert "class" not in row


def test_without_the_images_distance_remains(directory: Path, tmp_path: Path, reference: Reference) -> None:
    config = run.read_config(directory)
    config["train"]["data"]["name"] = "mnist"  # which is not below tmp_path
    for name in ("weights.safetensors", "train_features_stats.safetensors"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    run.write_json(tmp_path / "config.json", config)
    bare, x = Reference(tmp_path, tmp_path, torch.device("cpu")), images("test").x
    assert bare.held_out(10) == {}
    whole = reference.measure(x, None)
    assert bare.measure(x, None) == {key: whole[key] for key in ("n", "frechet_distance")}


def test_images_that_cannot_be_compared_are_refused(reference: Reference) -> None:
    with pytest.raises(ValueError, match=r"images \(1, 8, 8\), not \(1, 28, 28\)"):
        reference.measure(torch.zeros(9, 1, 28, 28, dtype=torch.uint8), None)
    with pytest.raises(ValueError, match=f"5 images are too few: need more than {metrics.K}"):
        reference.measure(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), None)
