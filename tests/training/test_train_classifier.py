"""The training program of the classifier, on scikit-learn's 8 x 8 digits."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from genserve.data.batches import AugmentConfig, WarpConfig, batch_indices, warped
from genserve.data.pictures import DataConfig, load_images, set_aside
from genserve.images import normalise
from genserve.learning.checkpoint import Checkpoint
from genserve.learning.classifying import Batches, NetConfig, TrainConfig, optimizer_of
from genserve.models.classifier import Classifier
from genserve.models.labels import Airbench
from genserve.runs.directory import config_of, load_classifier, read_config, read_metrics

PROGRAM = runpy.run_path(str(Path(__file__).parents[2] / "training/train_classifier.py"))


RESIDUAL = {"net": {"channels": (16, 16), "n_features": 8}}
POOLED = {
    "net": {"blocks": "pooled", "patch": 1, "channels": (16, 16), "n_features": 8, "norm": "batch"},
    "lr": 0.1,
    "momentum": 0.85,
    "bias_lr": 64.0,
    "label_smoothing": 0.1,
}


AIRBENCH: dict[str, Any] = {
    "net": {"blocks": "airbench", "channels": (8, 12)},
    "augment": AugmentConfig(shift=1, reflect=True),
    "flip_in_turn": True,
    "hold_out": 100,
    "lr": 0.5,
    "momentum": 0.85,
    "bias_lr": 64.0,
    "schedule": "triangle",
    "whitening_epochs": 1,
    "average": "lookahead",
    "label_smoothing": 0.1,
}


def fit(output: Path, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Train for three epochs of 10 batches and return everything that the run wrote."""
    config = TrainConfig(
        output=str(output),
        data=DataConfig(name="digits"),
        epochs=3,
        max_batches_per_epoch=10,
        batch_size=32,
        warmup=5,
        precision="fp32",
        device="cpu",
        **settings | {"net": NetConfig(**settings["net"])},
    )
    PROGRAM["main"](config)
    tensors: dict[str, torch.Tensor] = {}
    for path in (output / "classifier").glob("*.safetensors"):
        tensors |= safetensors.torch.load_file(path)
    return tensors


@pytest.mark.parametrize("settings", [RESIDUAL, POOLED, AIRBENCH], ids=["residual", "pooled", "airbench"])
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
    warp = WarpConfig
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
    config = TrainConfig(momentum=0.85, bias_lr=64.0, weight_decay=0.01)
    others, biases = optimizer_of(classifier, config).param_groups
    assert [p.shape for p in biases["params"]] == [(16,)] * 4
    assert len(others["params"]) == sum(p.requires_grad for p in classifier.parameters()) - 4
    assert (others["faster"], biases["faster"]) == (1, 64)
    assert biases["faster"] * biases["weight_decay"] == pytest.approx(others["weight_decay"])
    assert isinstance(optimizer_of(classifier, TrainConfig()), torch.optim.AdamW)


def test_a_classifier_to_be_served_learns_and_is_measured_on_images_held_out(tmp_path: Path) -> None:
    weights = fit(tmp_path, AIRBENCH)
    run = tmp_path / "classifier"
    assert not (run / "train_features_stats.safetensors").exists()
    assert read_config(run)["held_out"]["images"] == 100
    assert read_config(run)["data"]["images"] == 1400
    first, *_, last = read_metrics(run)
    assert last["loss"] < first["loss"]
    model = config_of(run)
    assert (model.family, model.mirror) == ("labels", True)  # type: ignore[attr-defined]
    network = model.build().eval()
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    _, kept = set_aside(load_images(DataConfig(name="digits"), "train"), 100, 0)
    right = (network(normalise(kept.x))[0].argmax(1) == kept.y).float().mean().item()
    assert right == pytest.approx(last["held_out_accuracy"])


def test_the_bias_of_the_stem_learns_for_the_first_epochs_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(Airbench, "learn_stem", lambda self, learn: calls.append(learn))
    fit(tmp_path, AIRBENCH)
    assert calls == [True] + [True] * 10 + [False] * 20


def test_the_bias_of_the_stem_has_learnt_something_unless_it_was_not_to(tmp_path: Path) -> None:
    assert fit(tmp_path / "learns", AIRBENCH)["body.0.bias"].abs().max() > 1e-4
    assert not fit(tmp_path / "does_not", AIRBENCH | {"whitening_epochs": 0})["body.0.bias"].any()


def test_images_are_mirrored_in_turn_epoch_by_epoch() -> None:
    digits = load_images(DataConfig(name="digits"), "train")
    config = TrainConfig(flip_in_turn=True, batch_size=1500, epochs=2)
    batches, x = Batches(config, digits, torch.device("cpu")), normalise(digits.x)
    for epoch in range(2):
        shown, _ = batches(epoch)
        picked = batch_indices(1500, 1500, 1, 0, epoch)
        turned = batches.flip_first[picked] ^ bool(epoch)
        assert shown[turned].equal(x[picked][turned].flip(-1))
        assert shown[~turned].equal(x[picked][~turned])
    assert 600 < batches.flip_first.sum() < 900


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"schedule": "steps"}, "schedule must be cosine or triangle, got 'steps'"),
        ({"average": "none"}, "average must be ema or lookahead, got 'none'"),
        ({"hold_out": -1}, "hold_out must be at least 0, got -1"),
        ({"whitening_epochs": -2}, "whitening_epochs must be at least 0, got -2"),
    ],
)
def test_a_setting_of_the_served_classifier_that_makes_no_sense_is_named(
    more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**more)
