"""The training program of the classifier, on scikit-learn's 8 x 8 digits."""

import runpy
from pathlib import Path

import pytest
import safetensors.torch
import torch

from genserve import train
from genserve.data import DataConfig

PROGRAM = runpy.run_path(str(Path(__file__).parents[2] / "training/train_classifier.py"))


def fit(output: Path) -> dict[str, torch.Tensor]:
    """Train for three epochs of 10 batches and return everything that the run wrote."""
    config = PROGRAM["TrainConfig"](
        output=str(output),
        data=DataConfig(name="digits"),
        net=PROGRAM["NetConfig"](channels=(16, 16), n_features=8),
        epochs=3,
        max_batches_per_epoch=10,
        batch_size=32,
        warmup=5,
        precision="fp32",
        device="cpu",
    )
    PROGRAM["main"](config)
    names = ("weights", "train_features_stats")
    files = [safetensors.torch.load_file(output / f"classifier/{name}.safetensors") for name in names]
    return files[0] | files[1]


def test_a_run_that_was_killed_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, save = fit(tmp_path / "unbroken"), train.Checkpoint.save

    def killed(self: train.Checkpoint, step: int, *models: object) -> None:
        if step == 20:
            raise KeyboardInterrupt
        save(self, step, *models)

    with monkeypatch.context() as patched:
        patched.setattr(train.Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "killed")
    resumed = fit(tmp_path / "killed")
    assert resumed.keys() == unbroken.keys()
    for name, value in unbroken.items():
        assert resumed[name].equal(value), name


def test_augmentation_moves_each_image_by_its_own_amount_and_nothing_at_0() -> None:
    warped, warp = PROGRAM["warped"], PROGRAM["WarpConfig"]
    x, rng = torch.rand(50, 1, 9, 9), torch.Generator().manual_seed(0)
    still = warped(x, warp(degrees=0, scale=0, shift=0), rng)
    torch.testing.assert_close(still, x, rtol=0, atol=1e-5)
    dot = torch.zeros(50, 1, 9, 9)
    dot[:, :, 4, 4] = 1
    moved = warped(dot, warp(degrees=0, scale=0, shift=2), rng)
    at = (torch.arange(9) * moved.sum(2)[:, 0]).sum(1) - 4  # of the dot's mass, in pixels to the right
    torch.testing.assert_close(moved.sum((1, 2, 3)), torch.ones(50))
    assert at.abs().max() <= 2
    assert at.std().item() == pytest.approx(2 / 3**0.5, rel=0.25)  # uniform in -2 to 2
