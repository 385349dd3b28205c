"""Settings are compared at equal evaluations; each is measured once and kept in a file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from real_server import ROOT

from genserve.drawing.local import draw, fair_classes
from genserve.files import read_json, write_json
from genserve.measure import metrics
from genserve.measure.curve import HELD_OUT, Curve, lines
from genserve.measure.features import features_of, read_stats
from genserve.measure.reference import quiet
from genserve.runs.defaults import spec_of
from genserve.runs.directory import load_classifier, load_denoiser
from genserve.sampling.settings import Setting

DIFFUSION, CLASSIFIER = ROOT / "weights/diffusion-mnist", ROOT / "weights/classifier-mnist"


def curve(folder: Path, seed: int = 3) -> Curve:
    """Return a curve of few images, with none of the data set to compare them with but its moments."""
    return Curve(
        directory=DIFFUSION,
        classifier=CLASSIFIER,
        root=folder / "nowhere",
        n=8,
        seed=seed,
        precision="fp32",
        device=torch.device("cpu"),
    )


def test_every_sampler_has_the_evaluations_that_are_compared() -> None:
    defaults = replace(spec_of(DIFFUSION).defaults, guided=False)
    for name, settings in lines(defaults, (4, 9)).items():
        evaluations = [Setting.parse(text, defaults).nfe for text in settings]
        if name == "tuned":
            assert evaluations == [levels.steps for levels in defaults.tuned]
        else:
            assert evaluations == [5 if name == "Heun" else 4, 9]  # 2 n - 1 is odd


def test_guidance_is_that_of_serving_json_and_a_distilled_model_has_its_own_sampler_alone() -> None:
    defaults = replace(spec_of(DIFFUSION).defaults, guidance=2.5)
    named = {name: line for name, line in lines(defaults, (4,)).items() if name != "tuned"}
    assert all(text.endswith(":guidance=2.5") for line in named.values() for text in line)
    assert list(lines(replace(defaults, sampler="consistency"), (4,))) == ["tuned"]
    assert lines(replace(defaults, sampler="consistency", tuned=()), (4,)) == {}


def test_a_row_is_the_distance_of_the_drawn_images_and_is_measured_once(tmp_path: Path) -> None:
    file, text = tmp_path / "curve.json", "ddim:2"
    row = curve(tmp_path).rows(file, [text], quiet)[text]
    stats, spec = read_stats(CLASSIFIER), spec_of(DIFFUSION)
    setting, y = Setting.parse(text, spec.defaults), fair_classes(8, stats.class_counts)
    x = draw(load_denoiser(DIFFUSION), spec, setting, y, seed=3)
    features = metrics.moments(features_of(load_classifier(CLASSIFIER), x))
    assert row["nfe"] == 2
    assert row["frechet_distance"] == pytest.approx(metrics.frechet_between(features, stats.train), rel=1e-3)
    kept = read_json(file, list)
    assert kept == [row]
    write_json(file, [row | {"nfe": 99}])
    assert curve(tmp_path).rows(file, [text], quiet)[text]["nfe"] == 99  # from the file


def test_rows_of_another_seed_stay_in_the_file_and_are_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "curve.json"
    first = curve(tmp_path).rows(file, [HELD_OUT], quiet)[HELD_OUT]
    second = curve(tmp_path, seed=4).rows(file, [HELD_OUT], quiet)[HELD_OUT]
    assert read_json(file, list) == [first, second]
    assert first["frechet_distance"] == second["frechet_distance"]  # of the same held-out images


@pytest.mark.parametrize("content", ["{}", "[3]", '[{"settin'])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "curve.json").write_text(content)
    with pytest.raises(ValueError, match=r"curve\.json [^\n]*$"):
        curve(tmp_path).rows(tmp_path / "curve.json", [], quiet)
