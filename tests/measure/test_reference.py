"""Images are compared with scikit-learn's 8 x 8 digits, by an untrained classifier."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from genserve.data.pictures import DataConfig, ImageSet, load_images
from genserve.files import write_json
from genserve.measure import metrics
from genserve.measure.features import features_of, write_stats
from genserve.measure.reference import Judge, Reference, Space, classifier_for, judge_for
from genserve.models.classifier import ClassifierConfig
from genserve.progress import Chunks
from genserve.runs.directory import FORMAT, read_config
from genserve.runs.tensors import write_weights

DATA = DataConfig(name="digits")


def images(split: str) -> ImageSet:
    return load_images(DATA, split)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of an untrained classifier: any features will do."""
    directory, dataset = tmp_path_factory.mktemp("classifier"), images("train")
    net = {"patch": 2, "channels": [16, 16], "n_features": 12}
    model = ClassifierConfig(family="classifier", shape=dataset.shape, classes=dataset.classes, net=net)
    torch.manual_seed(0)
    classifier = model.build().requires_grad_(False)
    train = {"data": asdict(DATA)}
    write_json(directory / "config.json", {"format": FORMAT, "model": asdict(model), "train": train})
    write_weights(directory / "weights.safetensors", classifier.state_dict())
    features = (features_of(classifier, images(split).x) for split in ("train", "test"))
    write_stats(directory, *features, dataset.y, len(dataset.classes))
    return directory


@pytest.fixture(scope="module")
def reference(directory: Path) -> Reference:
    return Reference(directory, None, torch.device("cpu"))  # these digits come with scikit-learn


def test_the_training_set_is_at_no_distance_from_itself_and_a_copy_of_itself(reference: Reference) -> None:
    row = reference.measure(images("train").x, images("train").y)
    assert row["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert row["kernel_distance"] < 0  # each image meets itself in the other set, and not in its own
    assert row["precision"] == row["recall"] == row["coverage"] == 1
    assert row["copy_distance"] == pytest.approx(0, abs=0.1)


def test_the_nearest_image_of_a_copy_is_its_original(reference: Reference) -> None:
    originals = images("train").x[[5, 1400, 77]]
    distance, neighbours = reference.nearest((originals.int() ^ 1).byte())  # every pixel one gray level off
    assert neighbours.equal(originals)
    assert distance.tolist() == pytest.approx([1, 1, 1], abs=1e-2)


def test_held_out_images_are_spread_over_the_whole_or_come_in_fair_shares(reference: Reference) -> None:
    test, counts = images("test"), images("train").y.bincount()
    plain, fair = reference.held_out(100).values()
    spread = test.x[torch.arange(100) * len(test) // 100]
    assert sorted(plain[0].flatten(1).tolist()) == sorted(spread.flatten(1).tolist())
    missing = 100 * counts / counts.sum() - fair[1].bincount(minlength=10)
    assert missing.min() >= 0
    assert missing.max() < 1
    assert list(reference.held_out(8)) == ["held-out images"]  # a tenth of 8 images is none
    assert len(reference.held_out(10**6)["held-out images"][0]) == len(test)
    assert len(reference.held_out(10**6)["held-out, in fair shares"][0]) < len(test)


def test_the_moments_give_the_floor_that_the_images_give(reference: Reference) -> None:
    row = reference.measure(images("test").x, None)
    assert reference.floor() == {"n": 297, "frechet_distance": pytest.approx(row["frechet_distance"])}
    assert "class" not in row


def test_the_data_are_where_the_classifier_learnt_from_or_where_one_says(
    directory: Path, tmp_path: Path
) -> None:
    config = read_config(directory)
    folders = tmp_path / "learnt", tmp_path / "moved"
    for gray, folder in enumerate(folders, 1):
        for split in ("train", "test"):
            (folder / split / "0").mkdir(parents=True)
            Image.new("L", (8, 8), gray).save(folder / split / "0/1.png")
    config["train"]["data"] |= {"name": "folder", "root": str(folders[0])}
    write_json(copied(directory, tmp_path / "run") / "config.json", config)
    for root, gray in ((None, 1), (folders[1], 2)):
        moved = Reference(tmp_path / "run", root, torch.device("cpu"))
        assert moved.root == folders[gray - 1]
        assert moved.real is not None
        assert moved.real.unique().tolist() == [gray]


def test_the_classifier_is_the_one_that_knows_such_images(directory: Path, tmp_path: Path) -> None:
    for name in ("classifier-gray", "classifier-letters", "classifier-colour"):
        config = read_config(directory)
        if name == "classifier-letters":
            config["model"]["classes"] = list("abcdefghij")
        if name == "classifier-colour":
            config["model"]["shape"] = [3, 16, 16]
        write_json(copied(directory, tmp_path / name) / "config.json", config)
    digits = tuple("0123456789")
    assert classifier_for((1, 8, 8), digits, tmp_path).name == "classifier-gray"
    assert classifier_for((1, 8, 8), tuple("abcdefghij"), tmp_path).name == "classifier-letters"
    for shape in ((3, 16, 16), (None, 16, 16)):
        assert classifier_for(shape, (), tmp_path).name == "classifier-colour"
    with pytest.raises(
        ValueError, match=r"several classifiers know images \(1, 8, 8\); there are: .*gray \(1, 8"
    ):
        classifier_for((1, 8, 8), (), tmp_path)
    with pytest.raises(ValueError, match=r"no classifier knows images \(3, 8, 8\); .* --classifier"):
        classifier_for((3, 8, 8), (), tmp_path)
    with pytest.raises(ValueError, match=r"of the classes cat, dog; there are: none"):
        classifier_for((1, 8, 8), ("cat", "dog"), tmp_path / "empty")


def test_a_judge_is_found_apart_from_the_classifiers_and_judges_alone(
    directory: Path, tmp_path: Path
) -> None:
    digits = tuple("0123456789")
    for name in ("classifier-gray", "judge-gray", "judge-unmarked"):
        config = read_config(directory)
        config["model"]["judge"] = name == "judge-gray"
        write_json(copied(directory, tmp_path / name) / "config.json", config)
    run = judge_for((1, 8, 8), digits, tmp_path)
    assert run == tmp_path / "judge-gray"  # the other one is a judge by its name only
    assert classifier_for((1, 8, 8), digits, tmp_path).name == "classifier-gray"
    assert judge_for((3, 8, 8), digits, tmp_path) is None
    judge, x = Judge(run, (1, 8, 8), torch.device("cpu")), images("test").x
    row = Reference(directory, None, torch.device("cpu")).measure(x, None)
    assert judge.measure(x) == {"judge_frechet_distance": pytest.approx(row["frechet_distance"])}
    y = images("test").y
    row = Reference(directory, None, torch.device("cpu")).measure(x, y)
    assert judge.measure(x, y)["judge_class"] == row["class"]  # the same network in both roles
    with pytest.raises(ValueError, match="classifier-gray is a classifier that may have chosen"):
        Judge(tmp_path / "classifier-gray", (1, 8, 8), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"knows images \(1, 8, 8\), not \(1, 28, 28\)"):
        Judge(run, (1, 28, 28), torch.device("cpu"))
    write_json(copied(directory, tmp_path / "judge-second") / "config.json", read_config(run))
    with pytest.raises(ValueError, match=r"several judges know images \(1, 8, 8\): .* --judge"):
        judge_for((1, 8, 8), digits, tmp_path)


def test_a_space_of_known_moments_measures_distance_alone_and_one_of_nothing_nothing() -> None:
    x = images("test").x

    def pixels(x: torch.Tensor, _: Chunks) -> torch.Tensor:
        return x.flatten(1).float()[:, 27:31]

    space = Space(pixels, images("train").x)
    row, features = space.measure(space.features(x)), space.features(x)
    real = pixels(images("train").x, iter)
    assert row["frechet_distance"] == metrics.frechet_distance(features, real)
    assert row["kernel_distance"] == metrics.kernel_distance(real, features)
    assert row["recall"] == metrics.manifolds(real, features).recall
    known = Space(pixels, None, metrics.moments(real))
    assert known.measure(features) == {"frechet_distance": row["frechet_distance"]}
    assert Space(pixels, None).measure(features) == {}


def copied(directory: Path, to: Path) -> Path:
    """Return another run directory with the same weights and features, without a configuration."""
    to.mkdir(exist_ok=True)
    for name in ("weights.safetensors", "train_features_stats.safetensors"):
        (to / name).write_bytes((directory / name).read_bytes())
    return to


def test_without_the_images_distance_remains(directory: Path, tmp_path: Path, reference: Reference) -> None:
    config = read_config(directory)
    config["train"]["data"]["name"] = "mnist"  # which is not below tmp_path
    write_json(copied(directory, tmp_path) / "config.json", config)
    bare, x = Reference(tmp_path, tmp_path, torch.device("cpu")), images("test").x
    assert bare.held_out(10) == {}
    row = reference.measure(x, None)
    assert bare.measure(x, None) == {key: row[key] for key in ("n", "frechet_distance")}


def test_images_that_cannot_be_compared_are_refused(reference: Reference) -> None:
    with pytest.raises(ValueError, match=r"images \(1, 8, 8\), not \(1, 28, 28\)"):
        reference.measure(torch.zeros(9, 1, 28, 28, dtype=torch.uint8), None)
    with pytest.raises(ValueError, match=f"5 images are too few: need more than {metrics.K}"):
        reference.measure(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), None)
