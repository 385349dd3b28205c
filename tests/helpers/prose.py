"""The programs and pages of the project, and the prose in them."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from real_server import ROOT

PYTHON = ("genserve", "handlers", "scripts", "tests", "training")
PROSE = (
    "README.md",
    "docs/*.md",
    "weights/*/README.md",
    "deploy/**/*.md",
    "tests/**/*.md",
    "model_store/*.md",
)


def programs() -> list[Path]:
    """Return every Python file of the project, with those that have no ending."""
    files = [path for folder in PYTHON for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in files if path.suffix == ".py" or (not path.suffix and is_python(path)))


def is_python(path: Path) -> bool:
    """Return whether the first line of a program names Python."""
    return path.read_bytes().split(b"\n")[0].startswith(b"#!/usr/bin/env python")


def pages() -> list[Path]:
    """Return every page of prose."""
    return sorted(path for pattern in PROSE for path in ROOT.glob(pattern))


def remarks(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring, as one line, and of every comment."""
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and (text := ast.get_docstring(node, clean=False)):
            yield node.body[0].lineno, " ".join(text.split())
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line of Markdown outside code, tables, headings and links."""
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(("```", "~~~")):
            code = not code
        elif not code and not line.lstrip().startswith(("|", "#", "![", "<")) and not line.startswith("    "):
            yield number, re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line)


def place(path: Path) -> str:
    """Return the name of a file below the project."""
    return path.relative_to(ROOT).as_posix()
