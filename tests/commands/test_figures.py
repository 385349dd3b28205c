"""Figures of runs that know nothing: of the right size, the same again, and of what `draw` draws."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genserve import images
from genserve.commands import figures as PROGRAM
from genserve.drawing.local import draw, fair_classes
from genserve.files import write_json
from genserve.measure import curve, metrics
from genserve.measure.features import features_of, read_stats
from genserve.measure.reference import Reference
from genserve.models.config import ModelConfig
from genserve.runs.defaults import spec_of
from genserve.runs.directory import FORMAT, load_classifier, load_model, model_config
from genserve.runs.tensors import write_weights
from genserve.sampling.defaults import Defaults
from genserve.sampling.noise import Streams
from genserve.sampling.schedules import Tuned
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import SAMPLERS

SCALE, TOP = 14, 40  # of 8 x 8 pixels; of the captions
STEP = (8 + images.GAP) * SCALE


def made(family: str, energy: str = "") -> Any:
    """Return a fixture: the run directory of an untrained model of 8 x 8 digits."""

    @pytest.fixture(scope="module")
    def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("runs") / (energy or family)
        path.mkdir()
        plain = energy == "plain"
        model = ModelConfig(
            family=family, energy=energy, shape=(1, 8, 8), classes=() if plain else tuple("0123456789"),
            mean=-0.4, std=0.7, sigma_min=1.0 if plain else 0.002, sigma_max=1.0 if plain else 40.0,
            net={"channels": [4]} if plain else {"patch": 1, "channels": [8], "attention": []},
        )  # fmt: skip
        torch.manual_seed(0)
        learnt = {"langevin": {"step_size": 1.0, "noise_std": 0.1, "gradient_max": 1.0, "final_steps": 9}}
        config = {"format": FORMAT, "model": asdict(model), "train": learnt}
        write_json(path / "config.json", config)
        write_weights(path / "weights.safetensors", model.build().state_dict())
        return path

    return directory


diffusion = made("diffusion")
residual = made("energy", "residual")
plain = made("energy", "plain")


def figure(directory: Path, folder: Path, *flags: str) -> None:
    common = ["--run", str(directory), "--output-dir", str(folder), "--device", "cpu"]
    PROGRAM.main(PROGRAM.command_line([*flags, *common]))


def read(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path).convert("L"))


def test_denoising_goes_from_noise_to_the_picture_that_draw_draws(diffusion: Path, tmp_path: Path):
    flags = ["denoising", "--setting", "heun:20", "--seed", "3", "--label", "7"]
    figure(diffusion, tmp_path / "a", *flags)
    figure(diffusion, tmp_path / "b", *flags)
    figure(diffusion, tmp_path / "c", *flags, "--seed", "4")
    once, again, other = ((tmp_path / x / "diffusion-denoising.png").read_bytes() for x in "abc")
    assert once == again != other
    sheet = read(tmp_path / "a/diffusion-denoising.png")
    assert sheet.shape == (TOP + 8 * STEP - images.GAP * SCALE, 8 * STEP - images.GAP * SCALE)
    model = model_config(diffusion)
    setting, y = Setting.parse("heun:20", spec_of(diffusion).defaults), torch.full((8,), 7)
    expected = draw(load_model(diffusion), model, setting, y, seed=3)
    noise = 40 * Streams(3, range(8))(torch.empty(8, 1, 8, 8)) / (1 + 40**2) ** 0.5
    for column, x in ((0, images.to_pixels(noise)[..., 0]), (7, expected[:, 0].numpy())):
        for row in range(8):
            part = sheet[TOP + row * STEP :, column * STEP :][: 8 * SCALE, : 8 * SCALE]
            assert (part[::SCALE, ::SCALE] == x[row]).all()
    assert (sheet[:TOP] < 128).any()  # the captions


def test_the_animation_ends_with_the_picture_and_loops(diffusion: Path, tmp_path: Path):
    figure(diffusion, tmp_path, "animation", "--setting", "ddim:80:eta=1")
    with Image.open(tmp_path / "diffusion-animation.gif") as film:
        assert film.n_frames == 9
        assert film.info["loop"] == 0
        film.seek(8)
        assert film.info["duration"] == 3000
        last = np.asarray(film.convert("L"))
    model = model_config(diffusion)
    y = torch.arange(64) % 10
    setting = Setting.parse("ddim:80:eta=1", spec_of(diffusion).defaults)
    expected = draw(load_model(diffusion), model, setting, y)
    grid = images.enlarge(images.grid(expected.permute(0, 2, 3, 1).numpy(), 8), 7)
    assert (last == grid[..., 0]).all()


def test_all_is_what_a_run_can_show(residual: Path, plain: Path, tmp_path: Path):
    figure(plain, tmp_path, "all")
    assert {p.name for p in tmp_path.iterdir()} == {
        "plain-denoising.png", "plain-animation.gif", "plain-samples.png", "plain-landscape.png",
    }  # fmt: skip
    figure(residual, tmp_path, "schedules", "landscape", "samples", "--setting", "ddim:12:eta=1")
    assert read(tmp_path / "residual-landscape.png").shape[1] == 1200
    assert read(tmp_path / "residual-schedules.png").shape == (600, 960)
    assert read(tmp_path / "residual-samples.png").shape[1] == 10 * STEP - images.GAP * SCALE
    with pytest.raises(ValueError, match="has no such figures: quality"):
        figure(plain, tmp_path, "quality")
    with pytest.raises(ValueError, match="label must be one of 0, 1"):
        figure(residual, tmp_path, "denoising", "--label", "ten")


def test_quality_compares_what_a_run_is_served_with() -> None:
    usual = Defaults(samplers=SAMPLERS, sampler="ddim", steps=9, sigma_min=0.002, sigma_max=80.0)
    tuned = Tuned(sampler="dpmpp_2m", eta=0.7, sigmas=(40.0, 3.0))
    guided = curve.lines(replace(usual, guided=True, guidance=3.0, tuned=(tuned,)), [4, 9])
    assert guided["Heun"] == ["heun:3:guidance=3", "heun:5:guidance=3"]  # 5 and 9 evaluations
    assert guided["DPM++, eta 0.7"] == ["dpmpp_2m:4:eta=0.7:guidance=3", "dpmpp_2m:9:eta=0.7:guidance=3"]
    assert guided["tuned"] == ["dpmpp_2m:2:schedule=tuned:eta=0.7:guidance=3"]
    few = replace(tuned, sampler="consistency", eta=0.0)
    distilled = replace(usual, sampler="consistency", steps=2, tuned=(few,))
    assert curve.lines(distilled, [4]) == {"tuned": ["consistency:2:schedule=tuned"]}
    assert "tuned" not in curve.lines(usual, [4])


def test_quality_is_the_distance_that_an_evaluation_measures(
    classifier: Path, diffusion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images drawn as `draw` draws them; what is in the file already is drawn into the figure as it is."""
    monkeypatch.chdir(tmp_path)
    flags = ["quality", "--n", "60", "--classifier", str(classifier), "--precision", "fp32"]
    figure(diffusion, tmp_path, *flags, "--evaluations", "[3]")
    picture, path = tmp_path / "diffusion-quality.png", tmp_path / "diffusion-quality.json"
    rows = {row["setting"]: row for row in json.loads(path.read_text())}
    assert [rows[name]["nfe"] for name in list(rows)[1:]] == [3] * 5
    stats, network = read_stats(classifier), load_classifier(classifier)
    held_out, spec = Reference(classifier, None, torch.device("cpu")).held_out(60), spec_of(diffusion)
    y = fair_classes(60, stats.class_counts)
    drawn = draw(load_model(diffusion), model_config(diffusion), Setting.parse("ddim:3", spec.defaults), y)
    for name, x in (("held-out images", held_out["held-out, in fair shares"][0]), ("ddim:3", drawn)):
        expected = metrics.frechet_between(metrics.moments(features_of(network, x)), stats.train)
        assert rows[name]["frechet_distance"] == pytest.approx(expected, rel=1e-3), name

    assert read(picture).std() > 10  # there are lines in it
    before = read(picture)
    rows["ddim:3"]["frechet_distance"] *= 2  # as no measurement would give it
    path.write_text(json.dumps(list(rows.values())))
    figure(diffusion, tmp_path, *flags, "--evaluations", "[3]")
    assert json.loads(path.read_text()) == list(rows.values())  # not measured again
    assert (read(picture) != before).any()
    figure(diffusion, tmp_path, *flags, "--evaluations", "[3]", "--seed", "1")
    more = json.loads(path.read_text())
    assert more[: len(rows)] == list(rows.values())
    assert [row["seed"] for row in more[len(rows) :]] == [1] * len(rows)  # of another seed, everything is
