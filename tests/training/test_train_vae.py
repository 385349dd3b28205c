"""The training program of the autoencoder, on scikit-learn's 8 x 8 digits."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted import killed_at
from small_programs import PROGRAMS

from genserve.data.pictures import DataConfig, load_images
from genserve.images import normalise
from genserve.learning.optim import generator
from genserve.models.flow import log_normal
from genserve.runs.directory import load_model, read_config, read_metrics
from genserve.runs.tensors import read_state, read_weights

PROGRAM = PROGRAMS["train_vae"]
SETTINGS: dict[str, Any] = {
    "data": DataConfig(name="digits"),
    "net": PROGRAM["NetConfig"](z_dim=8, channels=(16, 16), hidden=32, couplings=2, coupling_hidden=16),
    "batch_size": 32,
    "epochs": 3,
    "prior_epochs": 1,
    "prior_batch": 64,
    "prior_lr": 2e-2,
    "max_batches_per_epoch": 10,
    "warmup": 2,
    "kl_warmup": 10,
    "ema_decay": 0.9,
    "validation": 100,
    "checkpoint_every": 10,
    "sample_every": 15,
    "precision": "fp32",
    "device": "cpu",
}


def fit(output: Path, **more: Any) -> Path:
    """Train for 20 steps and the prior for 10 more, unless told otherwise; return the run directory."""
    PROGRAM["main"](PROGRAM["TrainConfig"](output=str(output), **SETTINGS | more))
    return output / "vae"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("step", [20, 30], ids=["where the second part begins", "in the second part"])
def test_a_run_that_was_killed_ends_where_an_unbroken_one_does(
    step: int, unbroken: Path, tmp_path: Path
) -> None:
    killed_at(step, lambda: fit(tmp_path))
    assert read_state(tmp_path / "vae/state.pt")["step"] == step - 10
    resumed = fit(tmp_path)
    assert (resumed / "weights.safetensors").read_bytes() == (unbroken / "weights.safetensors").read_bytes()
    assert (resumed / "samples.png").read_bytes() == (unbroken / "samples.png").read_bytes()
    curves = [
        [{k: v for k, v in line.items() if k != "images_per_s"} for line in read_metrics(run)]
        for run in (resumed, unbroken)
    ]
    assert curves[0] == curves[1]


def test_the_bound_of_images_that_are_not_learnt_from_is_measured(unbroken: Path) -> None:
    """It is what the loaded model answers for the last 100 training images, one z each."""
    lines = read_metrics(unbroken)
    assert [line["step"] for line in lines] == [15, 30]
    digits = load_images(DataConfig(name="digits"), "train")
    x, y = normalise(digits.x[-100:]), digits.y[-100:]
    rng = generator(0, PROGRAM["NO_STEP"], torch.device("cpu"))
    nll, divergence = load_model(unbroken).bound(x, y, torch.randn(100, 8, generator=rng))
    for name, part in (("reconstruction", nll), ("kl", divergence)):
        assert lines[-1][f"validation_{name}"] == pytest.approx(part.mean().item(), rel=1e-4)
    bits = (lines[-1]["validation_reconstruction"] + lines[-1]["validation_kl"]) / 64 / math.log(2)
    assert lines[-1]["validation_bits_per_dim"] == pytest.approx(bits)
    assert lines[-1]["validation_bits_per_dim"] < lines[0]["validation_bits_per_dim"]
    config = read_config(unbroken)
    assert (config["data"]["images"], config["held_out"]["images"]) == (1400, 100)


def test_images_held_out_are_part_of_the_run(unbroken: Path) -> None:
    with pytest.raises(ValueError, match=r"another run \(validation was 100, is 90"):
        fit(unbroken.parent, validation=90)


def test_in_the_second_part_the_prior_learns_alone(unbroken: Path, tmp_path: Path) -> None:
    """Encoder and decoder are those of the end of the first part, to the bit."""
    killed_at(30, lambda: fit(tmp_path))
    before = read_weights(tmp_path / "vae/weights.safetensors")  # of step 20, where the first part ends
    after = read_weights(unbroken / "weights.safetensors")
    for key, value in before.items():
        learns = key.startswith("prior.") and value.is_floating_point()
        assert torch.equal(after[key], value) != learns, key


def test_the_prior_learns_the_codes_as_they_are(tmp_path: Path) -> None:
    """Codes around 1, as narrow as 0.3: their density under the averaged prior rises by the difference."""
    config = PROGRAM["TrainConfig"](output=str(tmp_path), **SETTINGS | {"epochs": 10, "prior_epochs": 8})
    learning = learning_of(config)
    for net in (learning.vae, learning.ema):
        net.encoder.out.weight.data.zero_()
        net.encoder.out.bias.data = torch.tensor([1.0] * 8 + [2 * math.log(0.3)] * 8)
    losses = [learning.step(step)["loss"] for step in range(20, 100)]
    narrow = 8 * (0.5 * math.log(2 * math.pi) + math.log(0.3) + 0.5)  # the entropy of the codes
    assert losses[0] > narrow + 8
    assert losses[-1] == pytest.approx(narrow, abs=1)
    z = 1 + 0.3 * torch.randn(500, 8)
    noise, log_det = learning.ema.prior(z, learning.ema.one_hot(torch.arange(500) % 10))
    assert -(log_normal(noise) + log_det).mean().item() == pytest.approx(narrow, abs=1)


def test_the_loss_begins_with_a_small_weight_on_the_divergence(tmp_path: Path) -> None:
    """reconstruction + 0.1 kl in the first step, + kl after the rise."""
    run = fit(
        tmp_path, epochs=50, prior_epochs=49, max_batches_per_epoch=1, kl_warmup=10, checkpoint_every=50
    )
    assert read_state(run / "state.pt")["step"] == 50
    config = PROGRAM["TrainConfig"](output=str(tmp_path), **SETTINGS)
    learning = learning_of(config)
    for step, weight in ((0, 0.1), (5, 0.55), (10, 1.0), (19, 1.0)):
        loss, values = learning.loss(step)
        expected = values["reconstruction"] + weight * values["kl"]
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        nats = values["reconstruction"] + values["kl"]
        assert values["bits_per_dim"] == pytest.approx(nats / 64 / math.log(2))


def learning_of(config: Any) -> Any:
    from genserve.learning.feed import Feed
    from genserve.learning.ranks import Ranks

    dataset = load_images(config.data, "train")
    feed = Feed(dataset, config, Ranks(0, 1, torch.device("cpu")))
    torch.manual_seed(0)
    learning = PROGRAM["Learning"](config, PROGRAM["model_config"](config, dataset), feed)
    with torch.no_grad():
        for p in learning.vae.parameters():
            p += 0.05 * torch.randn_like(p)
    return learning


def test_codes_are_of_all_training_images_in_order(tmp_path: Path) -> None:
    learning = learning_of(PROGRAM["TrainConfig"](output=str(tmp_path), **SETTINGS))
    means, log_variances = learning.encoded()
    x, y = normalise(learning.feed.x[700:703]), learning.feed.y[700:703]
    mean, log_variance, _ = learning.ema.encode(x, y)
    torch.testing.assert_close(means[700:703], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_variances[700:703], log_variance, rtol=1e-4, atol=1e-5)
    assert means.shape == log_variances.shape == (1500, 8)


def test_a_run_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"loss and gradient norm .* at step \d+, lr .* --lr"):
        fit(tmp_path, lr=1e30)
    assert not (tmp_path / "vae/weights.safetensors").exists()


def test_pictures_without_classes_are_learnt_too(tmp_path: Path) -> None:
    run = fit(tmp_path, conditional=False)
    assert load_model(run).n_classes == 1
    assert read_config(run)["model"]["classes"] == []
