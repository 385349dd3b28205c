"""A run is served with its serving.json, on top of what suits its network."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from real_server import ROOT

from genserve.families import FAMILIES, Family
from genserve.files import read_json, write_json
from genserve.runs.defaults import serving_of, spec_of, walk_of
from genserve.runs.directory import config_of
from genserve.sampling.settings import Setting


def test_an_unknown_key_of_serving_json_is_refused(tmp_path: Path) -> None:
    """The steps have one place; a second one would be ignored."""
    for name in ("config.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((ROOT / "weights/energy-mnist-pcd" / name).read_bytes())
    for serving, named in (({"walk": {"steps": 5}}, "'steps'"), ({"sampelr": "ddim"}, "'sampelr'")):
        (tmp_path / "serving.json").write_text(json.dumps(serving))
        with pytest.raises(ValueError, match=rf"serving.json .* it has an unknown key {named}"):
            spec_of(tmp_path)


DRAWN = [
    path
    for path in sorted((ROOT / "weights").glob("*/serving.json"))
    if FAMILIES[config_of(path.parent).family].contract == Family.contract
]


@pytest.mark.parametrize("directory", DRAWN, ids=lambda p: p.parent.name)
def test_the_steps_that_a_server_takes_are_those_of_serving_json(directory: Path) -> None:
    spec = spec_of(directory.parent)
    setting = Setting.of(spec.defaults)
    assert setting.steps == json.loads(directory.read_text())["steps"]
    assert setting.text(spec.defaults).split(":")[1] == str(setting.steps)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("diffusion-mnist", {"sampler": "dpmpp_2m", "steps": 18}),
        ("energy-mnist", {"sampler": "ddim", "eta": 1.0, "steps": 25}),
        ("energy-mnist-pcd", {"sampler": "langevin", "steps": 256}),  # the final_steps of its chains
    ],
)
def test_without_serving_json_a_run_is_served_with_what_suits_its_network(
    name: str, expected: dict[str, object], tmp_path: Path
) -> None:
    config = read_json(ROOT / "weights" / name / "config.json")
    if "langevin" in config["train"]:
        config["train"]["langevin"]["final_steps"] = 256
    write_json(tmp_path / "config.json", config)
    assert serving_of(tmp_path) == expected
    write_json(tmp_path / "serving.json", {"steps": 7})
    assert serving_of(tmp_path) == expected | {"steps": 7}


def test_a_walk_is_that_of_training_unless_serving_json_says_otherwise(tmp_path: Path) -> None:
    shipped = ROOT / "weights/energy-mnist-pcd"
    (tmp_path / "config.json").write_bytes((shipped / "config.json").read_bytes())
    chains = read_json(shipped / "config.json")["train"]["langevin"]
    walk = walk_of(tmp_path)
    assert (walk.plain, walk.read_sigma, walk.restore_sigma) == (True, 1.0, 1.0)
    assert (walk.step_size, walk.noise_std) == (chains["step_size"], chains["noise_std"])
    assert walk.gradient_max == chains["gradient_max"]
    assert walk.refine_step_size == chains["step_size"]
    write_json(tmp_path / "serving.json", {"walk": {"noise_std": 0.5}})
    assert walk_of(tmp_path) == replace(walk, noise_std=0.5)
    write_json(tmp_path / "energies.json", {"sigma": 1.0, "quantiles": [1, 2]})
    assert walk_of(tmp_path).energies == (1.0, 2.0)
