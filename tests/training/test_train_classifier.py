"""The training program of the classifier, on scikit-learn's 8 x 8 digits."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from genserve.data.batches import batch_indices
from genserve.data.pictures import DataConfig, load_images
from genserve.images import normalise
from genserve.learning.checkpoint import Checkpoint
from genserve.models.classifier import Classifier
from genserve.runs.directory import load_classifier

PROGRAM = runpy.run_path(str(Path(__file__).parents[2] / "training/train_classifier.py"))


RESIDUAL = {"net": {"channels": (16, 16), "n_features": 8}}
POOLED = {
    "net": {"blocks": "pooled", "patch": 1, "channels": (16, 16), "n_features": 8, "norm": "batch"},
    "lr": 0.1,
    "momentum": 0.85,
    "bias_lr": 64.0,
    "label_smoothing": 0.1,
}


def fit(output: Path, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Train for three epochs of 10 batches and return everything that the run wrote."""
    config = PROGRAM["TrainConfig"](
        output=str(output),
        data=DataConfig(name="digits"),
        epochs=3,
        max_batches_per_epoch=10,
        batch_size=32,
        warmup=5,
        precision="fp32",
        device="cpu",
        **settings | {"net": PROGRAM["NetConfig"](**settings["net"])},
    )
    PROGRAM["main"](config)
    names = ("weights", "train_features_stats")
    files = [safetensors.torch.load_file(output / f"classifier/{name}.safetensors") for name in names]
    return files[0] | files[1]


@pytest.mark.parametrize("settings", [RESIDUAL, POOLED], ids=["residual", "pooled"])
def test_a_run_that_was_killed_ends_where_an_unbroken_one_does(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, save = fit(tmp_path / "unbroken", settings), Checkpoint.save

    def killed(self: Checkpoint, step: int, *models: object) -> None:
        if step == 20:
            raise KeyboardInterrupt
        save(self, step, *models)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "killed", settings)
    resumed = fit(tmp_path / "killed", settings)
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


def test_averaged_weights_have_statistics_of_their_own(tmp_path: Path) -> None:
    """What BatchNorm subtracts is the mean of what the averaged convolution before it answers."""
    fit(tmp_path, POOLED)
    classifier = load_classifier(tmp_path / "classifier")
    stem, _, block = classifier.body[:3]
    config = DataConfig(name="digits")
    digits = load_images(config, "train")
    picked = torch.cat([batch_indices(len(digits), 32, 10, 0, step) for step in range(22, 30)])
    h = block[1](block[0](F.silu(stem(normalise(digits.x[picked])))))
    assert block[2].num_batches_tracked == PROGRAM["STATISTICS"] == 8
    torch.testing.assert_close(block[2].running_mean, h.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_biases_of_norms_learn_faster_and_decay_as_much() -> None:
    classifier = Classifier((3, 8, 8), 10, **POOLED["net"])
    config = PROGRAM["TrainConfig"](momentum=0.85, bias_lr=64.0, weight_decay=0.01)
    others, biases = PROGRAM["optimizer_of"](classifier, config).param_groups
    assert [p.shape for p in biases["params"]] == [(16,)] * 4
    assert len(others["params"]) == sum(p.requires_grad for p in classifier.parameters()) - 4
    assert (others["faster"], biases["faster"]) == (1, 64)
    assert biases["faster"] * biases["weight_decay"] == pytest.approx(others["weight_decay"])
    assert isinstance(PROGRAM["optimizer_of"](classifier, PROGRAM["TrainConfig"]()), torch.optim.AdamW)
