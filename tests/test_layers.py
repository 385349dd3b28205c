"""Imports point to the core and never back, and a server needs none of the libraries of training."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "genserve"
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


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the top-level names of the packages that these statements import."""
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.name)
def test_imports_point_to_the_core(path: Path):
    everything = list(ast.walk(ast.parse(path.read_text())))
    later = {inner for node in everything if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
    assert not imported(everything) & USERS
    assert "pydantic" not in imported(everything) or path.name in ("api.py", "fields.py")
    assert "ts" not in imported(everything) or path.name == "host.py"
    assert not imported([node for node in everything if node not in later]) & TRAINING_ONLY
