"""The whole of an evaluation: with a classifier of 8 x 8 digits trained here, and with the one we ship."""

import hashlib
import json
import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluating import evaluate, evaluated
from PIL import Image

from genserve.data.pictures import DataConfig, load_images
from genserve.files import write_json
from genserve.measure import metrics
from genserve.measure.features import features_of, read_stats
from genserve.runs.directory import load_classifier, read_config, read_metrics

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, where no data are."""
    monkeypatch.chdir(tmp_path)


def table(output: str) -> list[dict[str, str]]:
    """Read the printed table back: cells are two or more spaces apart."""
    head, *lines = (line for line in output.splitlines() if "  " in line)
    keys = ["name", *head.split()]
    return [dict(zip(keys, re.split("  +", line.strip()), strict=True)) for line in lines]


def test_held_out_digits_are_measured_as_what_they_are(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = load_images(DataConfig(name="digits"), "test").x
    np.save("held.npy", x.permute(0, 2, 3, 1).numpy())
    rows = evaluate("--classifier", classifier, "--images", "held.npy", "--output", "here/e.json")
    floor, _, given = rows
    for key in ("n", "frechet_distance", "precision", "density", "recall", "coverage", "copy_distance"):
        assert floor[key] == pytest.approx(given[key])
    assert floor["class"] > 0.85  # trained for seconds
    assert floor["class"] == read_metrics(classifier)[-1]["test_accuracy"]
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


def test_an_energy_is_measured_as_it_is_served_or_by_langevin(
    classifier: Path, diffusion: Path, energy: Path
) -> None:
    """The energy whose residual is that of a denoiser; its own steps are refused to a diffusion model."""
    settings = ["heun:2", "langevin:3:step_size=0.3:noise=0.5"]
    common = ["--classifier", classifier, "--n", "12"]
    rows = evaluate("--run", energy, *common, "--settings", *settings)
    assert [(row["name"], row["nfe"]) for row in rows[2:]] == list(zip(settings, (3, 4), strict=True))
    *_, served = evaluate("--run", energy, *common)
    assert (served["name"], served["nfe"]) == ("ddim:25:eta=1", 25)
    with pytest.raises(ValueError, match="KEY one of schedule, guidance, eta"):
        evaluate("--run", diffusion, *common, "--settings", settings[1])


def test_an_unconditional_evaluation_asks_for_no_class(
    classifier: Path, diffusion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluate("--run", diffusion, "--classifier", classifier, "--n", "30", "--unconditional")
    assert ["class" in row for row in rows] == [True, True, False]
    assert table(capsys.readouterr().out)[-1]["class"] == "-"


def test_repeats_are_draws_of_their_own_and_the_table_shows_how_far_they_fall(
    classifier: Path, diffusion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--run", diffusion, "--classifier", classifier, "--n", "12", "--settings", "heun:2"]
    *_, row = evaluate(*common, "--seed", "4", "--repeats", "3")
    shown = table(capsys.readouterr().out)
    assert [repeat["seed"] for repeat in row["repeats"]] == [4, 5, 6]
    distances = [repeat["frechet_distance"] for repeat in row["repeats"]]
    assert len(set(distances)) == 3
    assert row["frechet_distance"] == pytest.approx(np.mean(distances))
    assert row["std"]["frechet_distance"] == pytest.approx(np.std(distances, ddof=1))
    mean, std = (float(number) for number in shown[-1]["FD"].split(" ± "))
    assert (mean, std) == pytest.approx((np.mean(distances), np.std(distances, ddof=1)), abs=6e-4)
    assert "±" not in shown[0]["FD"]
    *_, alone = evaluate(*common, "--seed", "5")
    assert alone["frechet_distance"] == pytest.approx(distances[1])
    assert alone["kernel_distance"] == pytest.approx(row["repeats"][1]["kernel_distance"])


def test_a_run_remembers_its_evaluations_unless_told_not_to(classifier: Path, diffusion: Path) -> None:
    log = diffusion / "evaluations.jsonl"
    log.write_text('{"torn')
    common = ["--run", diffusion, "--classifier", classifier, "--n", "6", "--settings", "heun:2"]
    rows = evaluated(*common, "--seed", "7")
    evaluate(*common, "--record", "false")
    assert [json.loads(line) for line in log.read_text().splitlines()[1:]] == [rows]
    assert (rows["seeds"], rows["n"]) == ([7], 6)
    assert (rows["precision"], rows["backend"]) == ("fp32", "torchscript")
    assert rows["command"].endswith("--seed 7 --device cpu")
    assert (
        rows["weights"] == hashlib.sha256((diffusion / "weights.safetensors").read_bytes()).hexdigest()[:12]
    )
    written = (classifier / "weights.safetensors").read_bytes()
    assert rows["classifier_weights"] == hashlib.sha256(written).hexdigest()[:12]
    assert rows["torch"] == torch.__version__
    assert datetime.fromisoformat(rows["time"]).tzinfo == timezone.utc


def test_statistics_written_of_images_are_what_other_images_are_compared_against(classifier: Path) -> None:
    """Against a file of its own a set has distance 0; against one of others, their distance."""
    for split in ("train", "test"):
        x = load_images(DataConfig(name="digits"), split).x[:200]
        np.save(f"{split}.npy", x.permute(0, 2, 3, 1).numpy())
    common = ["--classifier", classifier, "--images", "test.npy"]
    evaluate(*common, "--write-stats", "of/test.npz")
    *_, row = evaluate(*common, "--against", "of/test.npz")
    assert row["against"] == pytest.approx(0, abs=1e-6)
    *_, row = evaluate("--classifier", classifier, "--images", "train.npy", "--against", "of/test.npz")
    network = load_classifier(classifier)
    features = [
        features_of(network, load_images(DataConfig(name="digits"), s).x[:200]) for s in ("train", "test")
    ]
    assert row["against"] == pytest.approx(metrics.frechet_distance(*features))


def test_the_classifier_is_found_by_what_the_run_draws(classifier: Path, diffusion: Path) -> None:
    shutil.copytree(classifier, "weights/classifier-digits")
    common = ["--n", "6", "--settings", "heun:2"]
    assert evaluated("--run", diffusion, *common)["classifier"] == "weights/classifier-digits"
    x = load_images(DataConfig(name="digits"), "test").x
    np.save("held.npy", x.permute(0, 2, 3, 1).numpy())
    assert evaluated("--images", "held.npy")["classifier"] == "weights/classifier-digits"
    np.save("wide.npy", np.zeros((9, 8, 9, 1), np.uint8))
    with pytest.raises(
        ValueError, match=r"no classifier knows images \(1, 8, 9\); there are: weights/classifier-di"
    ):
        evaluate("--images", "wide.npy")


def test_a_judge_gives_its_own_distance_in_multiples_of_that_of_held_out_images(
    classifier: Path, diffusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge with the classifier's own weights, so that its distances are known."""
    judge = shutil.copytree(classifier, tmp_path / "weights/judge-digits")
    config = read_config(judge)
    config["model"]["judge"] = True
    write_json(judge / "config.json", config)
    common = ["--run", diffusion, "--classifier", classifier, "--n", "30", "--settings", "heun:2"]
    once = evaluated(*common)
    *_, fair, row = once["rows"]
    assert Path(once["judge"]) == Path("weights/judge-digits")
    assert once["judge_weights"] == once["classifier_weights"]
    for each in once["rows"]:
        assert each["judge_frechet_distance"] == pytest.approx(each["frechet_distance"])
    assert row["judge_multiple"] == pytest.approx(row["frechet_distance"] / fair["frechet_distance"])
    assert fair["judge_multiple"] == 1
    shown = table(capsys.readouterr().out.replace("FD judge", "judge").replace("x floor", "multiple"))[-1]
    assert float(shown["judge"]) == pytest.approx(row["judge_frechet_distance"], abs=6e-4)
    assert float(shown["multiple"]) == pytest.approx(row["judge_multiple"], abs=6e-3)

    *_, twice = evaluate(*common, "--repeats", "2")
    multiples = [repeat["judge_multiple"] for repeat in twice["repeats"]]
    assert multiples[0] == pytest.approx(row["judge_multiple"])
    assert twice["judge_multiple"] == pytest.approx(np.mean(multiples))
    assert twice["std"]["judge_multiple"] == pytest.approx(np.std(multiples, ddof=1))
    with pytest.raises(ValueError, match="digits is a classifier that may have chosen"):
        evaluate(*common, "--judge", classifier)


def test_without_the_data_the_shipped_moments_give_the_distance(capsys: pytest.CaptureFixture[str]) -> None:
    shipped, rng = ROOT / "weights/classifier-mnist", np.random.default_rng(0)
    for k in (0, 3):
        folder = Path("drawn") / str(k)
        folder.mkdir(parents=True)
        for i in range(32):
            Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(folder / f"{i:02}.png")
    floor, row = evaluate("--classifier", shipped, "--images", "drawn", "--data", "nowhere")
    output = capsys.readouterr().out
    assert "mnist is not below nowhere (--data)" in output
    assert "weights-inception-2015-12-05-6726825d.pth" in output
    x = load_images(DataConfig(name="folder", root="drawn"), "train").x
    moments = metrics.moments(features_of(load_classifier(shipped), x))
    expected = metrics.frechet_between(moments, read_stats(shipped).train)
    assert row["frechet_distance"] == pytest.approx(expected)
    columns = {"name", "n", "frechet_distance", "class_1000", "class"}  # folders name classes
    assert set(row) == columns | {"judge_frechet_distance"}  # of as many held-out images there is no floor
    assert floor["n"] == 10_000
    assert floor["frechet_distance"] < expected / 100


def test_on_openvino_a_run_draws_what_it_draws_without(classifier: Path, diffusion: Path) -> None:
    common = ["--run", diffusion, "--classifier", classifier, "--n", "9", "--settings", "ddim:3:eta=1"]
    *_, expected = evaluate(*common, "--record", "false")
    result = evaluated(*common, "--backend", "openvino", "--record", "false")
    assert (result["precision"], result["backend"]) == ("fp32", "openvino")
    assert result["rows"][-1]["frechet_distance"] == pytest.approx(expected["frechet_distance"], rel=0.01)
