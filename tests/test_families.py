"""The table of families names what exists, and adds nothing to what is imported."""

import ast
import sys
from pathlib import Path

import pytest
import torch
from real_server import ROOT
from torch import nn

from genserve import families
from genserve.families import FAMILIES, SERVED, Family, load
from genserve.files import read_json
from genserve.runs.contract import Spec
from genserve.runs.directory import config_of

NETWORKS = {
    f"{name} {kind}".strip(): (family, network)
    for name, family in FAMILIES.items()
    for kind, network in family.networks.items()
    if family.contract == Family.contract
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_names_what_exists(name: str) -> None:
    family = FAMILIES[name]
    assert callable(load(family.config).build)
    assert bool(family.request) == bool(family.handler[0]) == (name in SERVED)
    if name in SERVED:
        file, handler = family.handler
        assert load(family.request).__name__ in (ROOT / file).read_text()
        assert f"class {handler}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_s_serving_settings_suit_its_family(name: str) -> None:
    family, network = NETWORKS[name]
    levels = {"sigma_min": 1.0, "sigma_max": 1.0 if network.one_level else 40.0}
    settings = {"steps": 9} | network.serving
    spec = Spec(name="x", family=name.split()[0], shape=(1, 8, 8), classes=(), **levels, **settings)
    assert spec.sampler in spec.defaults.samplers
    assert spec.kind is family


@pytest.mark.parametrize(
    "path", sorted((ROOT / "weights").glob("*/config.json")), ids=lambda p: p.parent.name
)
def test_every_shipped_run_is_built_by_its_row(path: Path) -> None:
    config = config_of(path.parent)
    assert config.family == read_json(path)["model"]["family"]
    assert type(config) is load(FAMILIES[config.family].config)
    network = config.build()
    assert isinstance(network, nn.Module)
    assert all(isinstance(value, torch.Tensor) for value in network.state_dict().values())


def test_the_table_itself_imports_the_standard_library_alone() -> None:
    source = ast.parse(Path(families.__file__).read_text())
    modules = {node.module for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
    assert modules <= sys.stdlib_module_names
    assert not [node for node in ast.walk(source) if isinstance(node, ast.Import)]


@pytest.mark.parametrize("path", ["genserve.families.NoSuchName", "genserve.no_such_module.Name"])
def test_a_path_to_nothing_is_an_error(path: str) -> None:
    with pytest.raises((AttributeError, ModuleNotFoundError), match=r"NoSuchName|no_such_module"):
        load(path)
