"""The real program on scikit-learn's 8 x 8 digits: it learns, survives a kill, and says what is wrong."""

import json
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import program
import pytest
import torch
from PIL import Image
from torch import Tensor

from genserve.data.pictures import DataConfig, load_images
from genserve.images import normalise
from genserve.models.denoiser import denoising_loss, training_sigmas
from genserve.runs.directory import load_denoiser, model_config, read_metrics

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "training/train_diffusion.py"
SETTINGS = {
    "data": {"name": "digits"},
    "net": {"patch": 1, "channels": [16, 32], "attention": [4], "heads": 2, "dropout": 0.1},
    "augment": {"shift": 1, "flip": True},
    "batch_size": 32,
    "epochs": 3,  # of 46 batches
    "warmup": 20,
    "lr": 3e-3,
    "checkpoint_every": 40,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
}


start = partial(program.start, PROGRAM, SETTINGS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of two finished runs: `unbroken`, and `killed`, which took two processes."""
    directory = tmp_path_factory.mktemp("training")
    unbroken, killed = start(directory, "unbroken"), start(directory, "killed")
    state, metrics = directory / "runs/killed/state.pt", directory / "runs/killed/metrics.jsonl"
    # the first checkpoint is of step 40, the first metrics are of step 50: kill when these are ahead of that
    while not (state.exists() and metrics.stat().st_size > 0):
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL  # and not at its own end
    assert len(read_metrics(directory / "runs/killed")) < 3
    again = start(directory, "killed")
    program.finish(unbroken)
    output = program.finish(again)
    assert " 0/138" not in output  # it went on, it did not begin again
    return directory


def test_a_killed_run_ends_as_an_unbroken_one(runs: Path) -> None:
    """Exactly: the same weights, bit for bit, and the same curve, with dropout and augmentation at work."""
    weights = [(runs / "runs" / name / "weights.safetensors").read_bytes() for name in ("unbroken", "killed")]
    assert weights[0] == weights[1]
    assert program.curve(runs, "unbroken") == program.curve(runs, "killed")
    assert [record["step"] for record in program.curve(runs, "killed")] == [50, 100, 138]
    left = {path.name for path in (runs / "runs/unbroken").iterdir()}
    assert left == {"config.json", "weights.safetensors", "state.pt", "metrics.jsonl", "samples.png"}


def test_it_has_learnt_digits_it_never_saw(runs: Path) -> None:
    """With F = 0 the loss is 1: its targets have unit variance. No class is better than a wrong one."""
    denoiser = load_denoiser(runs / "runs/unbroken")
    digits = load_images(DataConfig(name="digits"), "test")
    x_0, rng = normalise(digits.x), torch.Generator().manual_seed(0)
    sigma = training_sigmas(torch.rand(len(digits), generator=rng), -1.2, 1.2)
    eps = torch.randn(x_0.shape, generator=rng)

    def loss(y: Tensor) -> float:
        return denoising_loss(denoiser, x_0, sigma, y, eps, denoiser.std).mean().item()

    right, none, wrong = loss(digits.y), loss(torch.full_like(digits.y, 10)), loss((digits.y + 1) % 10)
    assert right < none < wrong < 0.75


def test_what_is_wrong_is_named(runs: Path) -> None:
    """Four mistakes at once, for the start of a program takes seconds; each ends with a word about itself."""
    before = (runs / "runs/unbroken/weights.safetensors").read_bytes()
    key = start(runs, "key", learning_rate=1.0)
    flag = start(runs, "flag", "--learning-rate=1")
    assert "learning_rate" in program.fail(key)
    assert "learning_rate" in program.fail(flag)
    other = start(runs, "unbroken", "--net.dropout=0.2", "--lr=1e-3")
    huge = start(runs, "huge", "--lr=1e30")
    refusal = program.fail(other).splitlines()[-1]
    assert refusal.startswith("error: ")
    assert "holds another run" in refusal
    assert "lr was 0.003, is 0.001" in refusal
    assert (runs / "runs/unbroken/weights.safetensors").read_bytes() == before
    message = program.fail(huge).splitlines()[-1]
    # Adam's first step is as long as its rate, 1e30 / 20; the next forward pass leaves float32 behind
    assert re.match(r"error: loss (nan|inf) and gradient norm (nan|inf) at step 1, ", message)
    assert "lr=1e+30" in message  # the configuration
    assert not (runs / "runs/huge/weights.safetensors").exists()


def test_two_ranks_draw_the_curve_of_one(runs: Path) -> None:
    """The same global batch in two halves: only the order of float32 sums differs.

    A sum of 32 losses differs by some 1e-7 of itself, and Adam, which divides a gradient by its own size,
    enlarges that from step to step. We allow 1e-4 of the loss after 60 steps; one other image changes 1e-2.
    """
    same = {"epochs": 2, "max_batches_per_epoch": 30, "net": SETTINGS["net"] | {"dropout": 0.0}}
    one, two = start(runs, "one", **same), start(runs, "two", ranks=2, **same)
    program.finish(one)
    program.finish(two)
    single, double = program.curve(runs, "one"), program.curve(runs, "two")
    assert [record["step"] for record in double] == [50, 60]
    for key in ("loss", "grad_norm", "lr", "images"):
        assert [r[key] for r in double] == pytest.approx([r[key] for r in single], rel=1e-4)
    config = json.loads((runs / "runs/two/config.json").read_text())
    assert config["train"]["batch_size"] == 32


def test_photographs_in_a_folder_are_learnt_in_the_size_and_channels_asked_for(tmp_path: Path) -> None:
    """96 airplanes of CIFAR-10, in colour and in gray at half the size."""
    sheet = Image.open(Path(__file__).parent / "airplanes.png")
    (tmp_path / "airplanes").mkdir()
    for k in range(96):
        down, across = divmod(k, 12)
        tile = sheet.crop((32 * across, 32 * down, 32 * across + 32, 32 * down + 32))
        tile.save(tmp_path / f"airplanes/{k:02}.png")
    (tmp_path / "airplanes/._00.png").write_bytes(b"of the Finder")
    folder = {"name": "folder", "root": str(tmp_path / "airplanes")}
    net = {"patch": 2, "channels": [16, 32], "attention": [8], "heads": 2}
    few = {"net": net, "batch_size": 32, "epochs": 20, "warmup": 5, "p_mean": 0.0}
    colour = start(tmp_path, "colour", data=folder, **few)
    gray = start(tmp_path, "gray", data=folder | {"size": 16, "channels": 1}, **few)
    for name, process, shape in (("colour", colour, (3, 32, 32)), ("gray", gray, (1, 16, 16))):
        assert program.finish(process).count("passed over 1 hidden (._00.png)") == 1
        model = model_config(tmp_path / "runs" / name)
        assert (model.shape, model.classes) == (shape, ())
        records = read_metrics(tmp_path / "runs" / name)
        assert records[-1]["loss"] < 0.8  # F = 0 would be at 1
        with Image.open(tmp_path / "runs" / name / "samples.png") as picture:
            assert picture.mode == ("RGB" if name == "colour" else "L")
