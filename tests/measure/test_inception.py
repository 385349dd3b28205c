"""Files of statistics are those of pytorch-fid; the network is not tested, as its weights are not shipped."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genserve.measure import inception, metrics
from genserve.measure.inception import inception_features, load_inception, read_statistics, write_statistics


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) @ torch.arange(36.0).reshape(6, 6)


def test_statistics_are_written_as_pytorch_fid_reads_them(features: torch.Tensor, tmp_path: Path) -> None:
    """fid_score.py reads f["mu"][:] and f["sigma"][:], and makes them by np.mean and np.cov."""
    write_statistics(tmp_path / "a.npz", metrics.moments(features))
    with np.load(tmp_path / "a.npz") as f:
        mu, sigma = f["mu"][:], f["sigma"][:]
    assert mu.dtype == sigma.dtype == np.float64
    x = features.double().numpy()
    np.testing.assert_allclose(mu, np.mean(x, axis=0))
    np.testing.assert_allclose(sigma, np.cov(x, rowvar=False))


def test_statistics_of_pytorch_fid_give_the_distance_that_the_features_give(
    features: torch.Tensor, tmp_path: Path
) -> None:
    x = features.numpy()
    np.savez_compressed(tmp_path / "b.npz", mu=np.mean(x, axis=0), sigma=np.cov(x, rowvar=False))
    other = metrics.moments(features * 2 + 1)
    distance = metrics.frechet_between(read_statistics(tmp_path / "b.npz", 6), other)
    assert distance == pytest.approx(metrics.frechet_between(metrics.moments(features), other), rel=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "is no .npz file with the arrays mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.zeros((3, 2))}, "it holds (3,) and (3, 2)"),
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, "statistics of 4 features, the network has 3"),
        ({"mu": np.zeros(3), "sigma": np.eye(3) * np.nan}, "NaN or infinity"),
        ({"mu": np.array(["a", "b", "c"]), "sigma": np.eye(3)}, "is no .npz file"),
    ],
)
def test_other_arrays_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_statistics(tmp_path / "c.npz", 3)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no array")
    for name in ("array.npy", "text.npz"):
        with pytest.raises(ValueError, match=r"is no \.npz file"):
            read_statistics(tmp_path / name, 3)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_statistics(tmp_path / "nowhere.npz", 3)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name in ("text.npz", "other.pth"):
        with pytest.raises(ValueError, match="is not weights-inception-2015-12-05"):
            load_inception(tmp_path / name)


class Pixels(nn.Module):
    """A network with the shape of torch-fidelity's: it returns a tuple, and has a last layer `fc`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 1)
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        self.batches.append(len(x))
        assert (x.dtype, x.shape[1]) == (torch.uint8, 3)
        return (x.flatten(1).float(),)


def test_gray_images_reach_the_network_as_colour_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "CHUNK", 3)
    x = torch.arange(7 * 4, dtype=torch.uint8).view(7, 1, 2, 2)
    network = Pixels()
    assert inception_features(network, x).equal(x.repeat(1, 3, 1, 1).flatten(1).float())
    assert network.batches == [3, 3, 1]


def test_a_weights_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.pth; download weights-inception-2015"):
        load_inception(tmp_path / "nowhere.pth")
