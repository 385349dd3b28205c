"""Imports point down, inside genserve by a table; and a server needs no library of training."""

import ast
import graphlib
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "genserve"
MODULES = {  # name, less the package's -> file
    ".".join(path.relative_to(CORE).with_suffix("").parts): path
    for path in sorted(CORE.rglob("*.py"))
    if path.name != "__init__.py"
}


class Area(NamedTuple):
    """Modules with one purpose."""

    below: list[str]  # areas from which these modules import
    modules: list[str]  # each imports only from those before it, and from the areas below


# A new module takes its place in the area it belongs to, behind everything there that it imports.
TABLE = """
area | below | modules
leaves |  | files images cli places labels image_files
                                        data.listing
mathematics | | sampling.noise sampling.schedules models.unet
                                        sampling.samplers models.consistency
                                        sampling.langevin
                                        models.contrastive sampling.engine sampling.lanes
                                        runs.packing
datasets | leaves | data.pictures
runs | leaves mathematics | runs.directory runs.export runs.loading sampling.settings
drawing | leaves mathematics datasets runs | drawing.client drawing.folder drawing.local
                                        drawing.trajectory
learning | leaves mathematics datasets runs | learning.ranks learning.identity learning.checkpoint
                                        learning.learner learning.previews
measure | leaves mathematics datasets runs drawing | measure.records measure.metrics measure.inception
                                        models.classifier measure.reference
                                        measure.sources measure.curve
serving | leaves mathematics runs | serving.base64_text serving.fields serving.uploads
                                        serving.envelopes serving.rows
                                        serving.requests.pictures serving.requests.diffusion
                                        serving.requests.energy
                                        serving.replies serving.requests.energy_tasks
                                        serving.meter serving.hosts.torchserve serving.service
"""
ROWS = [row.split("|") for row in re.sub(r"\n +", " ", TABLE).strip().splitlines()[1:]]
AREAS = {name.strip(): Area(below.split(), modules.split()) for name, below, modules in ROWS}
SERVED = {"serving", *AREAS["serving"].below}

USERS = {"training", "handlers", "scripts", "tests", "web"}
TRAINING_ONLY = {
    "matplotlib",
    "torchvision",
    "sklearn",
    "jsonargparse",
    "tqdm",
    "tensorboard",
    "torch_fidelity",
    "httpx",
}


def names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the full names of what these statements import: modules, and what is taken from them."""
    imports = list(nodes)
    plain = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    taken = [node for node in imports if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in taken), "imports are absolute"
    return plain | {f"{node.module}.{alias.name}" for node in taken for alias in node.names}


def packages(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the top-level names of the packages that these statements import."""
    return {name.split(".")[0] for name in names(nodes)}


def modules_of(path: Path) -> set[str]:
    """Return the modules of genserve that a file imports, anywhere in it."""
    parts = [
        name.split(".")[1:] for name in names(ast.walk(ast.parse(path.read_text()))) if "genserve" in name
    ]
    dotted = {".".join(part[:n]) for part in parts for n in range(1, len(part) + 1)}
    return dotted & MODULES.keys()


def area_of(module: str) -> str:
    areas = [name for name, area in AREAS.items() if module in area.modules]
    if len(areas) != 1:
        pytest.fail(
            f"genserve.{module} is in {len(areas)} areas of the table: put it into one area of TABLE in "
            "tests/test_layers.py, behind the modules of that area that it imports"
        )
    return areas[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_inside_the_core_point_down(module: str) -> None:
    area = area_of(module)
    order = AREAS[area].modules
    for other in modules_of(MODULES[module]):
        if area_of(other) == area:
            assert order.index(other) < order.index(module), f"{module} imports {other}, which comes after it"
        else:
            assert area_of(other) in AREAS[area].below, (
                f"{module} ({area}) imports {other} ({area_of(other)})"
            )


def test_the_table_has_no_circle_and_no_module_that_is_gone() -> None:
    list(graphlib.TopologicalSorter({name: area.below for name, area in AREAS.items()}).static_order())
    gone = set(chain.from_iterable(area.modules for area in AREAS.values())) - MODULES.keys()
    assert not gone, f"strike {gone} out of TABLE in tests/test_layers.py"


@pytest.mark.parametrize("path", sorted((ROOT / "handlers").glob("*.py")), ids=lambda path: path.name)
def test_what_is_served_imports_no_data_sets_no_training_and_no_measure(path: Path) -> None:
    served, new = set(), modules_of(path)
    while new:
        served |= new
        new = set(chain.from_iterable(modules_of(MODULES[module]) for module in new)) - served
    assert {area_of(module) for module in served} <= SERVED
    assert "serving.service" in served
    assert not {"datasets", "learning", "measure", "drawing"} & SERVED


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(CORE)))
def test_imports_point_to_the_core(path: Path) -> None:
    everything = list(ast.walk(ast.parse(path.read_text())))
    later = {inner for node in everything if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
    assert not packages(everything) & USERS
    knows_pydantic = path.parent.name == "requests" or path.name == "fields.py"
    assert "pydantic" not in packages(everything) or knows_pydantic
    assert "ts" not in packages(everything) or path.parent.name == "hosts"
    assert not packages([node for node in everything if node not in later]) & TRAINING_ONLY
