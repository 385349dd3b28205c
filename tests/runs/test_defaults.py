"""A run is served with its serving.json, on top of what suits its network."""

import json
from pathlib import Path

import pytest
from real_server import ROOT

from genserve.runs.defaults import spec_of
from genserve.sampling.settings import Setting


def test_an_unknown_key_of_serving_json_is_refused(tmp_path: Path) -> None:
    """The steps have one place; a second one would be ignored."""
    for name in ("config.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((ROOT / "weights/energy-mnist-pcd" / name).read_bytes())
    for serving, named in (({"walk": {"steps": 5}}, "'steps'"), ({"sampelr": "ddim"}, "'sampelr'")):
        (tmp_path / "serving.json").write_text(json.dumps(serving))
        with pytest.raises(ValueError, match=rf"serving.json .* it has an unknown key {named}"):
            spec_of(tmp_path)


@pytest.mark.parametrize(
    "directory", sorted((ROOT / "weights").glob("*/serving.json")), ids=lambda p: p.parent.name
)
def test_the_steps_that_a_server_takes_are_those_of_serving_json(directory: Path) -> None:
    spec = spec_of(directory.parent)
    setting = Setting.of(spec.defaults)
    assert setting.steps == json.loads(directory.read_text())["steps"]
    assert setting.text(spec.defaults).split(":")[1] == str(setting.steps)
