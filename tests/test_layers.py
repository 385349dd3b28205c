"""Imports point down, room by room, and served code imports nothing of training."""

import ast
import graphlib
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
from real_server import ROOT

CORE = ROOT / "genserve"
MODULES = {  # name, less the package's -> file
    ".".join(path.relative_to(CORE).with_suffix("").parts): path
    for path in sorted(CORE.rglob("*.py"))
    if path.name != "__init__.py"
}

# Each room, and the rooms from which its modules import. Inside a room imports go in no circle.
TABLE = """
leaves         |
sampling       | leaves
language       | leaves sampling
models         | leaves sampling language
data           | leaves language
runs           | leaves sampling language models
compiling      | leaves sampling models runs
drawing        | leaves sampling language models runs compiling
learning       | leaves sampling language models data runs drawing
measure        | leaves sampling language models data runs drawing
serving        | leaves sampling language runs
serving.hosts  | leaves sampling serving
simulation     | leaves sampling models compiling runs serving serving.hosts
operate        | leaves
gateway        | leaves sampling language models data runs drawing learning measure serving serving.hosts \
                 operate
commands       | leaves sampling language models compiling data runs drawing learning measure serving \
                 serving.hosts simulation operate gateway
"""
BELOW = {
    room.strip(): below.split() for room, below in (row.split("|") for row in TABLE.strip().splitlines())
}
SERVED = {"leaves", "sampling", "language", "runs", "serving", "serving.hosts"}  # what a handler may reach

USERS = {"training", "handlers", "scripts", "tests"}
TRAINING_ONLY = {
    "matplotlib",
    "torchvision",
    "sklearn",
    "jsonargparse",
    "tqdm",
    "tensorboard",
    "torch_fidelity",
    "httpx",
    "requests",
}


def names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the full names that these statements import: modules, and names in them."""
    imports = list(nodes)
    plain = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    taken = [node for node in imports if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in taken), "imports are absolute"
    return plain | {f"{node.module}.{alias.name}" for node in taken for alias in node.names}


def packages(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the top-level names of the packages that these statements import."""
    return {name.split(".")[0] for name in names(nodes)}


def modules_of(path: Path) -> set[str]:
    """Return the modules of genserve that a file imports, also inside functions."""
    parts = [
        name.split(".")[1:]
        for name in names(ast.walk(ast.parse(path.read_text())))
        if name.split(".")[0] == "genserve"
    ]
    return {".".join(part[:n]) for part in parts for n in range(1, len(part) + 1)} & MODULES.keys()


def room_of(module: str) -> str:
    """Return the room of a module: the longest row of the table that begins its name."""
    if module == "__main__":
        return "commands"
    rooms = [room for room in BELOW if module.startswith(f"{room}.")]
    return max(rooms, key=len) if rooms else "leaves"


@pytest.mark.parametrize("module", MODULES)
def test_imports_inside_the_package_point_down(module: str) -> None:
    room = room_of(module)
    for other in modules_of(MODULES[module]):
        assert room_of(other) in [room, *BELOW[room]], f"{module} ({room}) imports {other}"


def test_no_imports_go_in_a_circle() -> None:
    list(graphlib.TopologicalSorter(BELOW).static_order())
    list(graphlib.TopologicalSorter({m: modules_of(path) for m, path in MODULES.items()}).static_order())


def test_every_folder_is_a_room() -> None:
    folders = {".".join(path.parent.relative_to(CORE).parts) or "leaves" for path in MODULES.values()}
    assert {room_of(f"{folder}.module") for folder in folders - {"leaves"}} | {"leaves"} == BELOW.keys()


@pytest.mark.parametrize("path", sorted((ROOT / "handlers").glob("*.py")), ids=lambda path: path.name)
def test_what_is_served_imports_no_data_sets_no_training_and_no_measure(path: Path) -> None:
    served, new = set(), modules_of(path)
    while new:
        served |= new
        new = set(chain.from_iterable(modules_of(MODULES[module]) for module in new)) - served
    assert {room_of(module) for module in served} <= SERVED
    assert "serving.service" in served
    runs = {module for module in served if room_of(module) == "runs"}
    names = ("comparison", "compiled", "contract", "loading", "packing", "tensors")
    loading = {f"runs.{name}" for name in names}
    assert runs >= loading
    assert all(module.startswith("runs.contracts.") for module in runs - loading - {"runs.contracts"})


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(CORE)))
def test_imports_point_to_the_package(path: Path) -> None:
    everything = list(ast.walk(ast.parse(path.read_text())))
    later = {inner for node in everything if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
    assert not packages(everything) & USERS
    room = room_of(next(module for module, file in MODULES.items() if file == path))
    of_a_client = path.parent.name == "requests" or path.name in ("fields.py", "values.py")
    knows_pydantic = of_a_client or room == "gateway"
    assert "pydantic" not in packages(everything) or knows_pydantic
    assert "ts" not in packages(everything) or path.parent.name == "hosts"
    if room not in ("commands", "gateway"):
        assert not packages([node for node in everything if node not in later]) & TRAINING_ONLY


def test_archives_and_servers_need_the_standard_library_alone() -> None:
    """They run on any Python, before anything is installed: no file of theirs, nor of what they import."""
    new = {module for module in MODULES if room_of(module) == "operate"}
    reached: set[str] = set()
    while new:
        reached |= new
        new = set(chain.from_iterable(modules_of(MODULES[module]) for module in new)) - reached
    assert {room_of(module) for module in reached} == {"operate", "leaves"}
    for module in reached:
        imported = packages(ast.walk(ast.parse(MODULES[module].read_text())))
        assert imported <= {*sys.stdlib_module_names, "genserve"}, module
