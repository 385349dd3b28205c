"""The whole of an evaluation: with a classifier of 8 x 8 digits trained here, and with the one we ship."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from program import imported

from genserve import data, metrics, run
from genserve.classifier import features_of, load_classifier, read_stats
from genserve.data import DataConfig

ROOT = Path(__file__).parents[2]


PROGRAM = imported("scripts/evaluate.py")


def evaluate(*flags: str | Path) -> list[dict[str, Any]]:
    """Run the program and return the rows that it wrote."""
    config = PROGRAM.command_line([*map(str, flags), "--device", "cpu"])
    PROGRAM.main(config)
    return json.loads(config.output.read_text())["rows"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, where no data are."""
    monkeypatch.chdir(tmp_path)


def table(output: str) -> list[dict[str, str]]:
    """Read the printed table back: cells are two or more spaces apart."""
    head, *lines = (line for line in output.splitlines() if "  " in line)
    keys = ["name", *head.split()]
    return [dict(zip(keys, re.split("  +", line.strip()), strict=True)) for line in lines]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the 8 x 8 digits, from the real training program."""
    output = tmp_path_factory.mktemp("runs")
    flags = "--name digits --data.name digits --net.channels [16,32] --net.n-features 24 --augment.shift 0.5"
    flags += f" --epochs 6 --batch-size 50 --warmup 10 --ema-decay 0.9 --threads 1 --output {output}"
    command = [sys.executable, str(ROOT / "training/train_classifier.py"), *flags.split()]
    subprocess.run(command, check=True)
    return output / "digits"


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of the same digits that has not learnt yet."""
    return untrained("diffusion", tmp_path_factory.mktemp("runs") / "untrained")


def untrained(family: str, directory: Path) -> Path:
    """Return the run directory of a model of the 8 x 8 digits that knows nothing."""
    directory.mkdir()
    model = run.ModelConfig(
        family=family,
        energy="residual" if family == "energy" else "",
        shape=(1, 8, 8),
        classes=tuple("0123456789"),
        mean=-0.4,
        std=0.7,
        sigma_min=0.002,
        sigma_max=40.0,
        net={"patch": 1, "channels": [16, 16], "attention": []},
    )
    torch.manual_seed(0)
    run.write_json(directory / "config.json", {"format": run.FORMAT, "model": asdict(model)})
    run.write_weights(directory / "weights.safetensors", model.build().state_dict())
    return directory


def test_held_out_digits_are_measured_as_what_they_are(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = data.load(DataConfig(name="digits"), "test").x
    np.save("held.npy", x.permute(0, 2, 3, 1).numpy())
    rows = evaluate("--classifier", classifier, "--images", "held.npy", "--output", "here/e.json")
    floor, _, given = rows
    for key in ("n", "frechet_distance", "precision", "density", "recall", "coverage", "copy_distance"):
        assert floor[key] == pytest.approx(given[key])
    assert floor["class"] > 0.85  # trained for seconds
    assert floor["class"] == run.read_metrics(classifier)[-1]["test_accuracy"]
    for shown, row in zip(table(capsys.readouterr().out), rows, strict=True):
        assert shown["name"] == row["name"]
        assert int(shown["n"]) == row["n"]
        assert float(shown["FD"]) == pytest.approx(row["frechet_distance"], abs=6e-4)
        assert float(shown["recall"]) == pytest.approx(row["recall"], abs=6e-4)
    pairs = np.asarray(Image.open("here/e-held.npy-neighbours.png"))
    assert (pairs[:16:2, :16:2] == x[0, 0].numpy()).all()  # the first image, enlarged, on the left
    assert Path("here/e-held.npy-samples.png").is_file()


def test_every_setting_is_a_row_and_guidance_doubles_its_evaluations(
    classifier: Path, diffusion: Path, tmp_path: Path
) -> None:
    settings = ["dpmpp_2m:2", "ddim:3:schedule=cosine:eta=0.5", "heun:2:guidance=2"]
    rows = evaluate("--run", diffusion, "--classifier", classifier, "--n", "30", "--settings", *settings)
    *floor, first, second, third = rows
    assert len(floor) == 2
    assert [row["name"] for row in (first, second, third)] == settings
    assert [row["nfe"] for row in (first, second, third)] == [2, 3, 6]
    assert first["frechet_distance"] > 3 * floor[0]["frechet_distance"]  # it has not learnt anything
    for what in ("samples", "neighbours"):
        assert len(list(tmp_path.glob(f"out/*-{what}.png"))) == 3


def test_an_energy_is_measured_as_it_is_served_or_by_langevin(classifier: Path, diffusion: Path) -> None:
    """The energy whose residual is that of a denoiser; its own steps are refused to a diffusion model."""
    energy = untrained("energy", diffusion.parent / "energy")
    settings = ["heun:2", "langevin:3:step_size=0.3:noise=0.5"]
    common = ["--classifier", classifier, "--n", "12"]
    rows = evaluate("--run", energy, *common, "--settings", *settings)
    assert [(row["name"], row["nfe"]) for row in rows[2:]] == list(zip(settings, (3, 4), strict=True))
    *_, served = evaluate("--run", energy, *common)
    assert (served["name"], served["nfe"]) == ("ddim:25:eta=1", 25)
    with pytest.raises(ValueError, match="SAMPLER one of ddim, ddpm, heun, dpmpp_2m, KEY"):
        evaluate("--run", diffusion, *common, "--settings", settings[1])


def test_an_unconditional_evaluation_asks_for_no_class(
    classifier: Path, diffusion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluate("--run", diffusion, "--classifier", classifier, "--n", "30", "--unconditional")
    assert ["class" in row for row in rows] == [True, True, False]
    assert table(capsys.readouterr().out)[-1]["class"] == "-"


def test_without_the_data_the_shipped_moments_give_the_distance(capsys: pytest.CaptureFixture[str]) -> None:
    shipped, rng = ROOT / "weights/classifier-mnist", np.random.default_rng(0)
    for k in (0, 3):
        folder = Path("drawn") / str(k)
        folder.mkdir(parents=True)
        for i in range(32):
            Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(folder / f"{i:02}.png")
    floor, row = evaluate("--classifier", shipped, "--images", "drawn")
    said = capsys.readouterr().out
    assert "mnist is not below data (--data)" in said
    assert "weights-inception-2015-12-05-6726825d.pth" in said
    x = data.load(DataConfig(name="folder", root="drawn"), "train").x
    moments = metrics.moments(features_of(load_classifier(shipped), x))
    expected = metrics.frechet_between(moments, read_stats(shipped).train)
    assert row["frechet_distance"] == pytest.approx(expected)
    assert set(row) == {"name", "n", "frechet_distance", "class_1000", "class"}  # folders name classes
    assert floor["n"] == 10_000
    assert floor["frechet_distance"] < expected / 100


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run", "nowhere"], "nowhere is no run directory: it has no config.json"),
        (["--images", "nowhere.npy"], "there is no file or folder nowhere.npy"),
        (["--images", "wrong.npy"], "must hold uint8 (N, 8, 8, 1), it holds uint8 (9, 7, 8, 1)"),
        (["--images", "text.npy"], "text.npy is no .npy file of images"),
        (["--images", "grid"], "2.png has 18 x 8 pixels, not 8 x 8"),
        (["--settings", "heun:9", "euler:10"], "got 'euler:10'"),
        (["--n", "5"], "n must be above 5"),
        (["--precision", "fp16"], "precision must be one of fp32, bf16"),
        (["--inception-weights", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--inception-weights", "text.npy"], "text.npy is not weights-inception-2015-12-05-6726825d.pth"),
        (["--classifier", "grid"], "grid is no run directory"),
    ],
)
def test_what_is_wrong_is_said(classifier: Path, diffusion: Path, flags: list[str], message: str) -> None:
    np.save("wrong.npy", np.zeros((9, 7, 8, 1), np.uint8))
    Path("text.npy").write_text("no array")
    Path("grid").mkdir()
    for name, width in (("1", 8), ("2", 18)):
        Image.new("L", (width, 8)).save(f"grid/{name}.png")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        evaluate("--run", diffusion, "--classifier", classifier, *flags)


def test_from_a_shell_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/evaluate.py"), "--images", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --images: there is no file or folder nowhere\n"
