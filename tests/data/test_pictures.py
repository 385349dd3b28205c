"""Data sets are read as they are in files written here, or refused in a sentence."""

import pickle
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genserve.data.pictures import DataConfig, load_images, mean_and_std


def save(
    path: Path, pixels: np.ndarray | Tensor | int, mode: str | None = None, size: tuple[int, int] = (4, 4)
) -> None:
    """Write one picture: an array, or one value everywhere, in a Pillow mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full(size[::-1], pixels, np.uint8) if isinstance(pixels, int) else np.asarray(pixels, np.uint8)
    picture = Image.fromarray(array)
    picture.convert(mode or picture.mode).save(path)


def folder(root: Path, **settings: Any) -> DataConfig:
    return DataConfig(name="folder", root=str(root), **settings)


# ---- data sets ---------------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    real = load_digits()
    parts = [load_images(DataConfig(name="digits"), split) for split in ("train", "test")]
    pixels = torch.cat([part.x for part in parts]).squeeze(1).numpy()
    np.testing.assert_allclose(pixels / 255, real.images / 16, atol=0.5 / 255)
    assert torch.cat([part.y for part in parts]).tolist() == real.target.tolist()
    assert [len(part) for part in parts] == [1500, 297]
    assert parts[0].classes == tuple("0123456789")


def idx(array: np.ndarray) -> bytes:
    """The file format of MNIST: two zeros, type 8 for bytes, the number of axes, their lengths, the bytes."""
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> dict[str, np.ndarray]:
    """Files as MNIST's, of random bytes, below tmp_path/MNIST."""
    rng = np.random.default_rng(0)
    files = {}
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for split, n in (("train", 7), ("t10k", 3)):
        files[f"{split}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        files[f"{split}-labels-idx1-ubyte"] = rng.integers(0, 10, n).astype(np.uint8)
    for name, array in files.items():
        (tmp_path / "MNIST/raw" / name).write_bytes(idx(array))
    return files


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_mnist_is_read_from_its_files(
    mnist: dict[str, np.ndarray], tmp_path: Path, split: str, prefix: str
) -> None:
    images = load_images(DataConfig(name="mnist", root=str(tmp_path), download=False), split)
    np.testing.assert_array_equal(images.x.squeeze(1), mnist[f"{prefix}-images-idx3-ubyte"])
    np.testing.assert_array_equal(images.y, mnist[f"{prefix}-labels-idx1-ubyte"])
    assert images.shape == (1, 28, 28)
    assert images.classes == tuple("0123456789")


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Files as CIFAR-10's, with checksums not asked for; returns the pixels, (5, 32, 32, 3)."""
    from torchvision.datasets import CIFAR10

    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    base = tmp_path / CIFAR10.base_folder
    base.mkdir()
    planes = pixels.transpose(0, 3, 1, 2).reshape(5, -1)  # in the file: all red, all green, all blue
    (base / "data_batch_1").write_bytes(pickle.dumps({"data": planes, "labels": [3, 1, 4, 1, 5]}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return pixels


def test_cifar10_is_read_from_its_files(cifar10: np.ndarray, tmp_path: Path) -> None:
    images = load_images(DataConfig(name="cifar10", root=str(tmp_path), download=False), "train")
    np.testing.assert_array_equal(images.x.permute(0, 2, 3, 1), cifar10)
    assert [images.classes[k] for k in images.y] == ["cat", "automobile", "deer", "automobile", "dog"]


def test_every_tenth_picture_of_caltech101_is_its_test_set(tmp_path: Path) -> None:
    base = tmp_path / "caltech101/101_ObjectCategories"
    (base / "BACKGROUND_Google").mkdir(parents=True)
    for k in range(20):  # 12 crabs, 8 zebras; the k-th picture is 10 k everywhere
        name, index = ("crab", k + 1) if k < 12 else ("zebra", k - 11)
        save(base / name / f"image_{index:04d}.jpg", 10 * k, size=(8, 8))
    config = DataConfig(name="caltech101", root=str(tmp_path), size=8, download=False)
    train, test = load_images(config, "train"), load_images(config, "test")
    assert test.x[:, 0, 0, 0].tolist() == [90, 190]
    assert [test.classes[k] for k in test.y] == ["crab", "zebra"]
    assert train.x[:, 0, 0, 0].tolist() == [10 * k for k in range(20) if k not in (9, 19)]


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "caltech101"])
def test_missing_data_is_one_clear_error(
    name: str, download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplugged(*_: object, **__: object) -> NoReturn:
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unplugged)
    with pytest.raises(FileNotFoundError, match=f"{name} is not below {tmp_path}.*--data.root"):
        load_images(DataConfig(name=name, root=str(tmp_path), download=download), "train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "imagenet"}, "data.name must be one of mnist, .*, got 'imagenet'"),
        ({"size": 0}, "data.size must be at least 1, got 0"),
        ({"channels": 2}, "data.channels must be 1 or 3, got 2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train or test, got 'valid'"):
        load_images(DataConfig(name="digits"), "valid")


# ---- a folder of images ------------------------------------------------------------------------------------


def test_a_folder_of_classes(tmp_path: Path) -> None:
    for name, value in (("b/2.png", 20), ("a/1.png", 10), ("b/10.png", 30), ("a/notes.txt", None)):
        save(tmp_path / name, value) if value else (tmp_path / name).write_text("no picture")
    images = load_images(folder(tmp_path), "train")
    assert images.classes == ("a", "b")
    assert images.x[:, 0, 0, 0].tolist() == [10, 30, 20]  # by name, so that every machine has the same order
    assert images.y.tolist() == [0, 1, 1]


def test_a_folder_with_a_split_numbers_the_classes_by_train(tmp_path: Path) -> None:
    names = ("train/ant", "train/bee", "train/cat", "test/bee", "test/cat")
    for value, name in enumerate(names, start=1):
        save(tmp_path / name / "0.png", value)
    train, test = load_images(folder(tmp_path), "train"), load_images(folder(tmp_path), "test")
    assert train.classes == test.classes == ("ant", "bee", "cat")
    assert train.x[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert test.x[:, 0, 0, 0].tolist() == [4, 5]
    assert test.y.tolist() == [1, 2]
    save(tmp_path / "test/dog/0.png", 6)
    with pytest.raises(ValueError, match=r"classes that .*train has not: dog"):
        load_images(folder(tmp_path), "test")


def test_what_is_passed_over_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/a/0.png", "train/a/._0.png", "test/a/0.png", "val/a/0.png"):
        save(tmp_path / name, 1)
    load_images(folder(tmp_path), "train")
    assert caplog.messages == [
        f"{tmp_path}, train: passed over 1 hidden (._0.png), 1 neither train nor test (val)"
    ]


def test_a_folder_without_classes(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / f"{k}.png", k)
    (tmp_path / "thumbnails").mkdir()  # empty, so no class
    images = load_images(folder(tmp_path), "train")
    assert images.classes == ()
    assert images.y.tolist() == [0, 0, 0]
    with pytest.raises(FileNotFoundError, match="has no folder test"):
        load_images(folder(tmp_path), "test")


def test_one_class_alone_has_no_classes() -> None:
    digits = load_images(DataConfig(name="digits"), "train")
    sevens = load_images(DataConfig(name="digits", only="7"), "train")
    assert torch.equal(sevens.x, digits.x[digits.y == 7])
    assert sevens.classes == ()
    assert sevens.y.tolist() == [0] * len(sevens)
    with pytest.raises(ValueError, match=r"data.only must be a class of digits: 0, 1, .*; got 'seven'"):
        load_images(DataConfig(name="digits", only="seven"), "train")


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no picture .* in .*{name}"):
        load_images(folder(tmp_path / name), "train")


@pytest.mark.parametrize(("damage", "reason"), [("text", "not a picture"), ("truncated", "a broken picture")])
def test_an_unreadable_picture_is_named(tmp_path: Path, damage: str, reason: str) -> None:
    save(tmp_path / "0.png", 1)
    save(tmp_path / "1.png", np.random.default_rng(0).integers(0, 256, (64, 64)))
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(b"hello" if damage == "text" else data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"1\.png: {reason}"):
        load_images(folder(tmp_path), "train")


def test_pictures_of_any_size_and_mode_become_one_size_and_colour(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Constant pictures stay constant under cropping, resizing and a change of mode."""
    save(tmp_path / "0.png", 100, "L", size=(9, 30))
    save(tmp_path / "1.png", np.full((6, 6, 3), 200))
    save(tmp_path / "2.png", 50, "RGBA", size=(40, 7))
    save(tmp_path / "3.gif", 255, "P")
    save(tmp_path / "4.png", 255, "1", size=(2, 3))
    caplog.set_level("INFO")
    images = load_images(folder(tmp_path, size=6), "train")
    assert images.shape == (3, 6, 6)  # though the first picture is gray
    assert (images.x.flatten(1) == torch.tensor([[100], [200], [50], [255], [255]])).all()
    assert caplog.messages == [
        "5 pictures: 3 cut to their centre square, 4 resized",
        "3 of 5 pictures are in colour: all are taken as colour",
    ]
    assert load_images(folder(tmp_path, size=6, channels=1), "train").shape == (1, 6, 6)


def test_a_size_that_is_not_given_must_be_one(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 1, size=(9, 6))
    save(tmp_path / "1.png", 1, size=(6, 7))
    assert load_images(folder(tmp_path), "train").shape == (1, 6, 6)
    save(tmp_path / "2.png", 1, size=(7, 7))
    message = r"data.size is not given, .*0\.png has a square of 6 x 6 pixels, .*2\.png one of 7 x 7"
    with pytest.raises(ValueError, match=message):
        load_images(folder(tmp_path), "train")


def test_the_centre_square_is_kept(tmp_path: Path) -> None:
    wide = np.arange(24).reshape(4, 6)
    save(tmp_path / "0.png", wide)
    np.testing.assert_array_equal(load_images(folder(tmp_path), "train").x[0, 0], wide[:, 1:5])
    gray_to_colour = load_images(folder(tmp_path, channels=3), "train").x[0]
    np.testing.assert_array_equal(gray_to_colour, np.stack([wide[:, 1:5]] * 3))


# ---- sizes and channels ------------------------------------------------------------------------------------


def test_gray_made_colour_has_three_equal_planes() -> None:
    gray = load_images(DataConfig(name="digits"), "test")
    colour = load_images(DataConfig(name="digits", channels=3), "test")
    assert torch.equal(colour.x, torch.cat([gray.x] * 3, dim=1))


def test_colour_made_gray_is_pillows_luma(cifar10: np.ndarray, tmp_path: Path) -> None:
    gray = load_images(DataConfig(name="cifar10", root=str(tmp_path), channels=1, download=False), "train").x
    expected = np.stack([np.asarray(Image.fromarray(row).convert("L")) for row in cifar10])
    np.testing.assert_allclose(gray.squeeze(1).float(), expected, atol=1)  # Pillow truncates, we round


def test_resizing_keeps_the_mean_and_the_place_of_things() -> None:
    small = load_images(DataConfig(name="digits"), "test").x.double()
    large = load_images(DataConfig(name="digits", size=32), "test").x.double()
    assert large.shape[2:] == (32, 32)
    assert large.mean().item() == pytest.approx(small.mean().item(), rel=0.01)

    def centre(x: Tensor) -> Tensor:
        """Centre of mass of each image, in image widths."""
        at = (torch.arange(x.shape[-1], dtype=x.dtype) + 0.5) / x.shape[-1]
        return (x.sum((1, 2)) @ at) / x.sum((1, 2, 3))

    assert (centre(large) - centre(small)).abs().max() < 0.01


def test_mean_and_std_are_numpys() -> None:
    images = load_images(DataConfig(name="digits"), "train")
    x = images.x.numpy() / 127.5 - 1
    assert mean_and_std(images) == pytest.approx((x.mean(), x.std()), abs=1e-7)
