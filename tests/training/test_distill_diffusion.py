"""Distilling a teacher of 8 x 8 digits: what it is for, that it resumes, ranks, what is wrong."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import program
import pytest
import torch

from genserve.drawing.local import fair_classes
from genserve.images import to_pixels
from genserve.measure.features import features_of, read_stats
from genserve.measure.metrics import frechet_between, moments
from genserve.runs.directory import load_classifier, load_denoiser, model_config, read_metrics
from genserve.runs.tensors import read_weights
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import heun, level, sample
from genserve.sampling.schedules import karras

ROOT = Path(__file__).parents[2]
TEACHER = {
    "data": {"name": "digits"},
    "net": {"patch": 1, "channels": [16, 32], "attention": [4], "heads": 2},
    "batch_size": 64,
    "epochs": 12,  # of 23 batches
    "warmup": 20,
    "lr": 4e-3,
    "ema_decay": 0.99,
    "p_mean": 0.0,
    "sigma_max": 20.0,
    "sample_every": 10_000,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
}
SETTINGS = {key: TEACHER[key] for key in ("data", "batch_size", "warmup", "precision", "device", "threads")}
SETTINGS |= {"epochs": 4, "lr": 2e-3, "checkpoint_every": 30, "few": [20.0, 1.0], "sample_every": 100}
start = partial(program.start, ROOT / "training/distill_diffusion.py", SETTINGS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of `teacher`, and of `unbroken`, `killed` and `double`, which learnt from it alike."""
    directory = tmp_path_factory.mktemp("distilling")
    program.finish(program.start(ROOT / "training/train_diffusion.py", TEACHER, directory, "teacher"))
    teacher = str(directory / "runs/teacher")
    unbroken, killed = (start(directory, name, teacher=teacher) for name in ("unbroken", "killed"))
    state = directory / "runs/killed/state.pt"
    while not state.exists():
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL  # and not at its own end
    program.finish(unbroken)
    assert " 0/92" not in program.finish(start(directory, "killed", teacher=teacher))
    program.finish(start(directory, "double", teacher=teacher, ranks=2))
    return directory


def test_a_killed_run_ends_as_an_unbroken_one(runs: Path) -> None:
    one, other = (
        (runs / "runs" / name / "weights.safetensors").read_bytes() for name in ("unbroken", "killed")
    )
    assert one == other
    assert program.curve(runs, "unbroken") == program.curve(runs, "killed")


def test_two_ranks_draw_the_curve_of_one(runs: Path) -> None:
    for one, two in zip(program.curve(runs, "unbroken"), program.curve(runs, "double"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-3)


def test_one_evaluation_answers_with_the_end_of_the_path(runs: Path) -> None:
    """The teacher answers pure noise with the mean of a class; the student with where its ODE would lead."""
    teacher, student = (load_denoiser(runs / "runs" / name) for name in ("teacher", "unbroken"))
    model = model_config(runs / "runs/unbroken")
    assert model == model_config(runs / "runs/teacher")
    y = torch.arange(100) % 10
    x_t = model.sigma_max * Streams(0, range(100))(torch.empty(100, *model.shape))
    end = sample(heun(x_t, karras(20, model.sigma_min, model.sigma_max), y), teacher)
    with torch.no_grad():
        before, after = (
            (answer(x_t, level(model.sigma_max, x_t), y) - end).square().mean().item()
            for answer in (teacher, student)
        )
    assert after < 0.95 * before


def drawn_distance(directory: Path, chooser: Path) -> float:
    """Return the Frechet distance of 1,000 images in two evaluations, at the levels 20 and 1."""
    denoiser, stats = load_denoiser(directory), read_stats(chooser)
    y, noise = fair_classes(1000, stats.class_counts), Streams(0, range(1000))
    x = torch.zeros(1000, *model_config(directory).shape)
    with torch.no_grad():
        for sigma in (20.0, 1.0):
            x_t = x + sigma * noise(x)
            x = denoiser(x_t, level(sigma, x_t), y)
    pixels = torch.from_numpy(to_pixels(x)).permute(0, 3, 1, 2)
    return frechet_between(moments(features_of(load_classifier(chooser), pixels)), stats.train)


def test_the_weights_that_drew_best_are_kept(runs: Path, tmp_path: Path) -> None:
    """Measured with a classifier of the same images, at every 20th step."""
    chooser = {
        "data": {"name": "digits"},
        "net": {"patch": 1, "channels": [16, 32], "n_features": 16},
        "batch_size": 64,
        "epochs": 5,
        "lr": 5e-3,
        "device": "cpu",
        "threads": 1,
    }
    program.finish(program.start(ROOT / "training/train_classifier.py", chooser, tmp_path, "chooser"))
    wild = {"lr": 5e-2, "stages": 3, "ema_decay": 0.5}  # learns too fast, so that it gets worse
    more = {
        "teacher": str(runs / "runs/teacher"),
        "classifier": str(tmp_path / "runs/chooser"),
        "probe_every": 20,
    }
    program.finish(start(tmp_path, "measured", **wild, **more))
    measured = [r for r in read_metrics(tmp_path / "runs/measured") if "frechet_distance" in r]
    assert [r["step"] for r in measured] == [20, 40, 60, 80, 92]
    left = {path.name for path in (tmp_path / "runs/measured").iterdir()}
    assert left == {"config.json", "weights.safetensors", "state.pt", "metrics.jsonl", "samples.png"}
    state = torch.load(tmp_path / "runs/measured/state.pt", weights_only=True)
    best = min(r["frechet_distance"] for r in measured)
    assert state["best"].item() == pytest.approx(best)
    kept = drawn_distance(tmp_path / "runs/measured", tmp_path / "runs/chooser")
    assert kept == pytest.approx(best, abs=1e-3)
    assert best < measured[-1]["frechet_distance"] - 0.01  # the last weights are others
    weights = read_weights(tmp_path / "runs/measured/weights.safetensors")
    assert weights.keys() == state["kept"].keys()
    assert all(value.equal(state["kept"][name]) for name, value in weights.items())


def test_what_is_wrong_is_named(runs: Path) -> None:
    energy = start(runs, "energy", teacher=str(ROOT / "weights/energy-mnist"))
    other = start(runs, "other", teacher="weights/diffusion-mnist")  # found beside the program, too
    judged = start(runs, "judged", teacher=str(runs / "runs/teacher"), classifier="weights/judge-mnist")
    few = start(runs, "few", teacher=str(runs / "runs/teacher"), few=[1.0, 20.0])
    assert "holds no diffusion model" in program.fail(energy)
    assert "error: teacher weights/diffusion-mnist knows (1, 28, 28)" in program.fail(other)
    assert "judge-mnist is a judge, which chooses nothing" in program.fail(judged)
    assert "few must be falling noise levels" in program.fail(few)
    assert not any((runs / "runs" / name).exists() for name in ("energy", "other", "judged", "few"))
