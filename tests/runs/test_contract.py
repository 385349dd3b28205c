"""model.json describes its run, and anything else is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from real_server import ROOT

from genserve.runs.contract import Walk, read_spec
from genserve.runs.defaults import spec_of
from genserve.runs.directory import model_config
from genserve.sampling.schedules import Tuned

RUN = ROOT / "weights" / "diffusion-mnist"


def test_the_contract_describes_the_run(exported: Path) -> None:
    spec, model = read_spec(exported / "model.json"), model_config(RUN)
    assert (spec.shape, spec.classes, spec.sigma_max) == (model.shape, model.classes, model.sigma_max)
    assert json.loads((exported / "model.json").read_text()) == json.loads(
        json.dumps(dataclasses.asdict(spec))
    )


@pytest.mark.parametrize("change", [{"format": 99}, {"family": "gan"}, {"sampler": "euler"}])
def test_a_contract_of_the_future_is_refused_in_one_sentence(
    exported: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    value = json.loads((exported / "model.json").read_text()) | change
    (tmp_path / "model.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"model\.json") as caught:
        read_spec(tmp_path / "model.json")
    assert "\n" not in str(caught.value)


def test_a_missing_contract_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build_archives"):
        read_spec(tmp_path / "model.json")


def test_what_is_tuned_twice_is_refused() -> None:
    tuned = Tuned(sampler="ddim", sigmas=(9.0, 1.0))
    with pytest.raises(ValueError, match="tuned has 2 steps twice"):
        dataclasses.replace(spec_of(RUN), tuned=(tuned, dataclasses.replace(tuned, eta=0.5)))
    for sigmas in ((), (1.0, 9.0), (9.0, 0.0), (9.0, 9.0)):
        with pytest.raises(ValueError, match="must fall and be above 0"):
            Tuned(sampler="ddim", sigmas=sigmas)


@pytest.mark.parametrize("content", ["", '{"format": 1}', '{"format": 1, "shape": 3, "classes": []}', "[1]"])
def test_a_torn_contract_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.json [^\n]*$"):
        read_spec(tmp_path / "model.json")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "classifier"}, "family must be one of diffusion, energy, .*, got 'classifier'"),
        ({"sampler": "langevin"}, "sampler must be one of .*, got 'langevin'"),  # of energies alone
        ({"schedule": "tuned"}, "schedule must be one of .*, got 'tuned'"),
        ({"sampler": "heun", "eta": 0.5}, "heun takes no eta, got 0.5"),
    ],
)
def test_a_contract_that_no_request_could_be_drawn_with_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"model\.json: {message}"):
        dataclasses.replace(spec_of(RUN), **fields)


def test_the_rank_of_an_energy_is_the_share_of_training_images_below_it() -> None:
    walk = Walk(plain=False, read_sigma=0.5, energies=(1.0, 2.0, 4.0, 8.0))
    assert [walk.rank(energy) for energy in (0.0, 1.0, 1.5, 4.1, 9.0)] == [0, 0, 0.25, 0.75, 1]
    assert Walk(plain=False, read_sigma=0.5).rank(3.0) is None
