"""Tuning: the search against a score whose best is known, and the whole program on the shipped model."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from real_server import ROOT

from genserve.commands import tune
from genserve.files import write_json
from genserve.runs.defaults import spec_of
from genserve.runs.export import export
from genserve.sampling.schedules import Tuned
from genserve.sampling.settings import Setting

RUN = ROOT / "weights/diffusion-mnist"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(RUN, tmp_path / "mine")
    write_json(tmp_path / "mine/serving.json", {"sampler": "ddim", "eta": 1.0, "steps": 9})
    return tmp_path / "mine"


@pytest.mark.parametrize("judged_by", ["classifier", "the ODE"])
def test_the_search_finds_levels_and_noise_whose_best_is_known(judged_by: str, copied: Path) -> None:
    best = Tuned(sampler="ddim", eta=0.3, sigmas=(35.0, 6.0, 1.5, 0.2))
    noisy = judged_by == "classifier"
    config = tune.TuneConfig(run=copied, classifier=Path("some") if noisy else None, budget=300)
    tried: list[Tuned] = []

    def score(levels: Tuned) -> float:
        tried.append(levels)
        far = sum(math.log(a / b) ** 2 for a, b in zip(levels.sigmas, best.sigmas, strict=True))
        return far + (levels.eta - best.eta) ** 2 * noisy + (levels.sampler != "ddim")

    levels, after, before = tune.search(config, 4, score)
    assert before == score(next(tune.starts(config, 4)))
    assert levels.sampler == "ddim"
    assert levels.eta == pytest.approx(best.eta if noisy else 0.0, abs=0.03)
    assert levels.sigmas == pytest.approx(best.sigmas, rel=0.03)
    assert after < 0.01 * before
    assert len(tried) <= 300 + 1
    for one in tried:
        assert all(a > b > 0 for a, b in pairwise(one.sigmas))
        assert one.sigmas[0] <= 40
        assert 0 <= one.eta <= 1


def test_a_search_goes_on_from_what_an_earlier_one_found(copied: Path) -> None:
    """A little off the best: the way back is short. Fresh noise is left out where the ODE judges."""
    tuned = Tuned(sampler="ddim", eta=0.3, sigmas=(35.0, 6.0, 1.5, 0.2))
    tune.keep(copied, tuned)
    with_noise = tune.TuneConfig(run=copied, classifier=Path("some"))
    assert list(tune.starts(with_noise, 4))[1:] == [tuned]
    without = tune.TuneConfig(run=copied)
    for config, steps in ((without, 4), (with_noise, 5)):
        others = list(tune.starts(config, steps))
        assert tuned not in others
        assert len(others) > 2


def test_a_budget_is_kept() -> None:
    tried: list[Tuned] = []
    config = tune.TuneConfig(run=RUN, budget=5)
    tune.search(config, 3, lambda levels: tried.append(levels) or float(len(tried)))
    assert len(tried) == 5


def test_what_is_found_is_served(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nearer to the ODE's picture than the usual levels, beside what was found before, in the archive."""
    earlier = {"sampler": "heun", "eta": 0.0, "sigmas": [9.0]}
    serving = json.loads((copied / "serving.json").read_text())
    write_json(copied / "serving.json", serving | {"tuned": [earlier], "steps": 3})
    config = tune.TuneConfig(
        run=copied, steps=(3,), n=6, budget=14, reference_steps=20, precision="fp32", threads=1
    )
    tune.main(config)
    output = capsys.readouterr().out
    after, before = (float(output.split(word)[1].split()[0].rstrip(",")) for word in ("255 ", "before "))
    assert after < before
    tuned = json.loads((copied / "serving.json").read_text())["tuned"]
    assert tuned[0] == earlier
    assert len(tuned[1]["sigmas"]) == 3
    assert tuned[1]["eta"] == 0
    assert export(copied, tmp_path / "out").defaults.tuned_for(3).sigmas == tuple(tuned[1]["sigmas"])
    defaults = spec_of(copied).defaults
    assert Setting.of(defaults).text(defaults) == f"{tuned[1]['sampler']}:3:schedule=tuned"

    before_all: dict[str, Any] = json.loads((copied / "serving.json").read_text())
    tune.main(
        tune.TuneConfig(run=copied, steps=(1,), n=6, budget=1, reference_steps=3, threads=1, write=False)
    )
    assert json.loads((copied / "serving.json").read_text()) == before_all


def test_a_judge_tunes_nothing() -> None:
    with pytest.raises(ValueError, match=r"classifier: .*judge-mnist is a judge, which chooses nothing"):
        tune.judged(tune.TuneConfig(run=RUN, classifier=ROOT / "weights/judge-mnist"))


def test_what_cannot_be_tuned_is_named() -> None:
    with pytest.raises(ValueError, match="knows one noise level"):
        tune.judged(tune.TuneConfig(run=ROOT / "weights/energy-mnist-pcd"))
    with pytest.raises(ValueError, match="samplers must be among ddim, dpmpp_2m, consistency, got heun"):
        tune.TuneConfig(samplers=("heun",))
    with pytest.raises(ValueError, match=r"consistency .* needs a classifier"):
        tune.TuneConfig(samplers=("consistency",))
    with pytest.raises(ValueError, match="at least 1"):
        tune.command_line(["--steps", "4", "0"])
    assert tune.command_line(["--steps", "5", "--samplers", "ddim"]).samplers == ("ddim",)
