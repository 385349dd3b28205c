"""Temperatures of a classifier of scikit-learn's digits, fitted on what it has held out."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from real_server import ROOT

from genserve.commands import calibrate
from genserve.data.pictures import DataConfig, load_images, set_aside
from genserve.images import normalise
from genserve.learning.classifying import NetConfig, TrainConfig
from genserve.measure.calibration import expected_calibration_error, fitted_temperature
from genserve.runs.directory import load_model
from genserve.sampling.labelling import probabilities

PROGRAM = runpy.run_path(str(ROOT / "training/train_classifier.py"))


def trained(output: Path, **more: Any) -> Path:
    """Train a classifier for two seconds and return its run directory."""
    settings: dict[str, Any] = {"hold_out": 300, "momentum": 0.85, "bias_lr": 64.0, "lr": 0.5, "epochs": 5}
    settings |= {"schedule": "triangle", "average": "lookahead", "label_smoothing": 0.2, "batch_size": 64}
    settings |= {"net": NetConfig(blocks="airbench", channels=(8, 16)), "precision": "fp32", "device": "cpu"}
    config = TrainConfig(output=str(output), name="labels", data=DataConfig(name="digits"), **settings | more)
    PROGRAM["main"](config)
    return output / "labels"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs"))


def test_temperatures_and_quality_go_into_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As computed apart from the program, without views."""
    calibrate.run(["--run", str(run)])
    serving = json.loads((run / "serving.json").read_text())
    network = load_model(run)
    train, test = (load_images(DataConfig(name="digits"), split) for split in ("train", "test"))
    _, kept = set_aside(train, 300, 0)
    temperature = fitted_temperature(network(normalise(kept.x))[0], kept.y)
    assert serving["temperatures"][0] == pytest.approx(temperature, abs=1e-3)
    assert serving["temperatures"][0] == serving["temperatures"][1] != serving["temperatures"][2]
    assert temperature < 0.5  # smoothed labels made it less sure than it is right
    p = probabilities(network(normalise(test.x))[0], temperature)
    accuracy = (p.argmax(1) == test.y).float().mean().item()
    assert accuracy > 0.85
    quality = serving["quality"]
    assert (quality["images"], quality["accuracy"][0]) == (297, pytest.approx(accuracy, abs=1e-4))
    assert quality["ece"][0] == pytest.approx(expected_calibration_error(p, test.y), abs=2e-3)
    text = capsys.readouterr().out
    assert "300 images held out, 297 test images, fp32" in text
    assert text.count("taken for") == 3


def test_a_temperature_is_printed_and_not_written_if_that_is_the_wish(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "serving.json").read_bytes() if (run / "serving.json").exists() else b""
    (run / "serving.json").write_text('{"temperatures": [2, 2, 2], "quality": {}}')
    calibrate.run(["--run", str(run), "--write=false", "--precision", "bf16"])
    assert json.loads((run / "serving.json").read_text())["temperatures"] == [2, 2, 2]
    assert "bf16" in capsys.readouterr().out
    (run / "serving.json").write_bytes(before)


def test_views_are_computed_once_for_all_levels() -> None:
    logits = torch.randn(5, 6, 3)
    assert calibrate.at_level(logits, 0, True).equal(logits[:, 0])
    torch.testing.assert_close(calibrate.at_level(logits, 1, True), logits[:, :2].mean(1))
    every = logits[:, :2].mean(1) / 2 + logits[:, 2:].mean(1) / 2
    torch.testing.assert_close(calibrate.at_level(logits, 2, True), every)


def test_the_weakest_classes_come_first_with_what_they_are_taken_for() -> None:
    y = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 3])
    logits = torch.eye(4)[torch.tensor([0, 0, 2, 2, 3, 1, 2, 1, 3])]
    assert calibrate.weakest(logits, y, ("a", "b", "c", "d")) == [
        "b: right 25.0 %; taken for c 50.0 %, d 25.0 %",
        "c: right 50.0 %; taken for b 50.0 %",
        "a: right 100.0 %; taken for nothing else",
    ]


def test_what_cannot_be_calibrated_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"^error: .* of the family classifier, must be of the family labels"
    ):
        calibrate.run(["--run", str(ROOT / "weights/classifier-mnist")])
    with pytest.raises(SystemExit, match="precision must be fp32 or bf16, got 'fp8'"):
        calibrate.run(["--run", str(run), "--precision", "fp8"])
    nothing = trained(tmp_path, hold_out=0, epochs=1)
    with pytest.raises(SystemExit, match="has held out no images to fit on: train it with --hold-out 2000"):
        calibrate.run(["--run", str(nothing)])
    config = json.loads((run / "config.json").read_text())
    config["train"]["seed"] = 5
    (nothing / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match=r"are not those that .* has held out"):
        calibrate.run(["--run", str(nothing)])
