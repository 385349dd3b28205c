"""The real program, as a user would start it: with a classifier it can check, and with the one we ship."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genserve import data, metrics, run
from genserve.classifier import features_of, load_classifier, read_stats
from genserve.data import DataConfig

ROOT = Path(__file__).parents[2]


def evaluate(directory: Path, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts/evaluate.py", "--threads", "1", "--device", "cpu", *flags]
    return subprocess.run(list(map(str, command)), cwd=directory, capture_output=True, text=True, check=False)


def table(output: str) -> list[dict[str, str]]:
    """Read the printed table back: cells are two or more spaces apart."""
    head, *lines = (line for line in output.splitlines() if "  " in line)
    keys = ["name", *head.split()]
    return [dict(zip(keys, (cell for cell in line.split("  ") if cell), strict=True)) for line in lines]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the 8 x 8 digits, from the real training program."""
    output = tmp_path_factory.mktemp("runs")
    flags = "--name digits --data.name digits --net.channels [16,32] --net.n-features 24 --augment.shift 0"
    flags += f" --epochs 6 --batch-size 50 --ema-decay 0.9 --warmup 10 --threads 1 --output {output}"
    program = [sys.executable, str(ROOT / "training/train_classifier.py"), *flags.split()]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output / "digits"


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of the same digits that has not learnt yet."""
    directory = tmp_path_factory.mktemp("runs") / "untrained"
    directory.mkdir()
    net = {"patch": 1, "channels": [16, 16], "attention": []}
    model = run.ModelConfig(
        family="diffusion",
        shape=(1, 8, 8),
        classes=tuple("0123456789"),
        mean=-0.4,
        std=0.7,
        sigma_min=0.002,
        sigma_max=40.0,
        net=net,
    )
    torch.manual_seed(0)
    run.write_json(directory / "config.json", {"format": run.FORMAT, "model": asdict(model)})
    run.write_weights(directory / "weights.safetensors", model.build().state_dict())
    return directory


def test_held_out_digits_are_measured_as_what_they_are(classifier: Path, tmp_path: Path) -> None:
    x = data.load(DataConfig(name="digits"), "test").x
    np.save(tmp_path / "held.npy", x.permute(0, 2, 3, 1).numpy())
    done = evaluate(tmp_path, "--classifier", classifier, "--images", "held.npy", "--output", "here/e.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "here/e.json").read_text())
    printed = table(done.stdout)
    floor, _, given = found["rows"]
    same = ("n", "frechet_distance", "precision", "density", "recall", "coverage", "copy_distance")
    assert {key: floor[key] for key in same} == {key: given[key] for key in same}
    assert floor["class"] > 0.85  # trained for seconds
    assert floor["class"] == run.read_metrics(classifier)[-1]["test_accuracy"]
    assert [row["name"] for row in printed] == [row["name"] for row in found["rows"]]
    for shown, row in zip(printed, found["rows"], strict=True):
        assert float(shown["FD"]) == pytest.approx(row["frechet_distance"], abs=6e-4)
        assert float(shown["recall"]) == pytest.approx(row["recall"], abs=6e-4)
        assert int(shown["n"]) == row["n"]
    pairs = np.asarray(Image.open(tmp_path / "here/e-held.npy-neighbours.png"))
    assert (pairs[:16:2, :16:2] == x[0, 0].numpy()).all()  # the first image, twice as large, is left of its nearest
    assert (tmp_path / "here/e-held.npy-samples.png").is_file()


def test_every_setting_is_a_row_and_guidance_doubles_its_evaluations(
    classifier: Path, diffusion: Path, tmp_path: Path
) -> None:
    settings = ["dpmpp_2m:2", "ddim:3:schedule=cosine:eta=0.5", "heun:2:guidance=2"]
    run_ = ["--run", diffusion, "--classifier", classifier, "--n", "30"]
    done = evaluate(tmp_path, *run_, "--settings", *settings, "--output", "e.json")
    assert done.returncode == 0, done.stderr
    *floor, first, second, third = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert len(floor) == 2
    assert [row["name"] for row in (first, second, third)] == settings
    assert [row["nfe"] for row in (first, second, third)] == [2, 3, 6]
    assert first["frechet_distance"] > 3 * floor[0]["frechet_distance"]  # it has not learnt anything
    assert len(list(tmp_path.glob("e-*-samples.png"))) == len(list(tmp_path.glob("e-*-neighbours.png"))) == 3


def test_an_unconditional_evaluation_has_no_class_columns(classifier: Path, diffusion: Path, tmp_path: Path) -> None:
    done = evaluate(tmp_path, "--run", diffusion, "--classifier", classifier, "--n", "30", "--unconditional")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out/evaluation.json").read_text())["rows"]
    assert ["class" in row for row in rows] == [True, True, False]
    assert table(done.stdout)[-1]["class"] == "-"


def test_without_the_data_the_shipped_moments_give_the_distance(tmp_path: Path) -> None:
    shipped = ROOT / "weights/classifier-mnist"
    rng = np.random.default_rng(0)
    for k in (0, 3):
        (tmp_path / "drawn" / str(k)).mkdir(parents=True)
        for i in range(32):
            Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(tmp_path / f"drawn/{k}/{i:02}.png")
    done = evaluate(tmp_path, "--classifier", shipped, "--images", "drawn", "--output", "e.json")
    assert done.returncode == 0, done.stderr
    assert "mnist is not below data (--data)" in done.stdout
    assert "weights-inception-2015-12-05-6726825d.pth" in done.stdout
    floor, row = json.loads((tmp_path / "e.json").read_text())["rows"]
    x = data.load(DataConfig(name="folder", root=str(tmp_path / "drawn")), "train").x
    network, stats = load_classifier(shipped), read_stats(shipped)
    expected = metrics.frechet_between(metrics.moments(features_of(network, x)), stats.train)
    assert row["frechet_distance"] == pytest.approx(expected)
    assert set(row) == {"name", "n", "frechet_distance", "class_1000", "class"}  # the folders named the classes
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
        (["--settings", "euler:10"], "got 'euler:10'"),
        (["--n", "5"], "n must be above 5"),
        (["--inception-weights", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--inception-weights", "text.npy"], "text.npy is not weights-inception-2015-12-05-6726825d.pth"),
        (["--classifier", "grid"], "grid is no run directory"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    classifier: Path, diffusion: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((9, 7, 8, 1), np.uint8))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "grid").mkdir()
    for name, width in (("1", 8), ("2", 18)):
        Image.new("L", (width, 8)).save(tmp_path / f"grid/{name}.png")
    done = evaluate(tmp_path, "--run", diffusion, "--classifier", classifier, *flags)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
