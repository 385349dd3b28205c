"""Names and prose are plain English: no banned local, no banned word, no line of prose that is too wide."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prose import pages, place, programs, prose, remarks

NAMES = {
    "anew", "asked", "found", "here", "how", "nobody", "said", "seen", "shall", "there", "told", "wanted",
    "way", "whole", "whom",
}  # fmt: skip
THINGS = "block|forward pass|group|image|layer|level|line|look|row|side|step"
WORDS = re.compile(
    rf"\b(anew|shall|whom|nobody|wanted is|so many|where not given|an? (?:{THINGS}) an? (?:{THINGS}))\b",
    re.IGNORECASE,
)
WIDTH = 120  # columns of prose in Markdown


def stored(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of every variable that a program gives a value, and of every parameter."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.ExceptHandler(name=str(name))
                | ast.alias(asname=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield node.lineno, name


def faults_of_code(path: Path) -> list[str]:
    """Return the banned names and words of a program, each with its line."""
    source = path.read_text()
    names = [f"{line}: the name {name}" for line, name in stored(ast.parse(source)) if name in NAMES]
    return names + [f"{line}: {hit[0]!r}" for line, text in remarks(source) for hit in WORDS.finditer(text)]


def faults_of_prose(path: Path) -> list[str]:
    """Return the banned words of a page, each with its line."""
    lines = [(number, re.sub(r"`[^`]*`", "", line)) for number, line in prose(path.read_text())]
    return [f"{number}: {hit[0]!r}" for number, line in lines for hit in WORDS.finditer(line)]


def faults_of_width(path: Path) -> list[str]:
    """Return the lines of a page that are too wide."""
    lines = prose(path.read_text())
    return [f"{number}: {len(line)} columns" for number, line in lines if len(line) > WIDTH]


def test_programs_and_pages_have_no_banned_name_or_word() -> None:
    faults = [f"{place(path)}:{fault}" for path in programs() for fault in faults_of_code(path)]
    faults += [f"{place(path)}:{fault}" for path in pages() for fault in faults_of_prose(path)]
    assert len(programs()) > 50
    assert not faults, "\n".join(faults)


def test_prose_is_no_wider_than_120_columns() -> None:
    faults = [f"{place(path)}:{fault}" for path in pages() for fault in faults_of_width(path)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "text",
    [
        "found = 1", "for found in x: pass", "def f(found): pass", "def f(*, found=1): pass",
        "lambda found: 1", "[1 for found in x]", "(found := 1)", "with x as found: pass",
        "import x as found", "a, (b, *found) = x", "try: pass\nexcept E as found: pass", "found: int = 1",
        "match x:\n    case [found]: pass", "found += 1",
        "match x:\n    case {**found}: pass", "match x:\n    case [*found]: pass", "async def f(found): pass",
    ],
)  # fmt: skip
def test_every_kind_of_name_is_looked_at(text: str) -> None:
    assert "found" in [name for _, name in stored(ast.parse(text))]


@pytest.mark.parametrize(
    "text", ["x.found", "f(found=1)", "found()", "{'found': 1}", "import found.x", "del x"]
)
def test_names_of_others_are_left_alone(text: str) -> None:
    assert "found" not in [name for _, name in stored(ast.parse(text))]


def test_docstrings_and_comments_are_read_and_other_text_is_not() -> None:
    source = '"""One."""\nx = "three"  # two\nclass A:\n    """Four\n    five."""\n'
    assert sorted(remarks(source)) == [(1, "One."), (2, "# two"), (4, "Four five.")]


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("an image a step", True), ("Nobody reads it", True), ("so many", True), ("blocks per level", False),
        ("a marshall", False), ("not where given", False),
    ],
)  # fmt: skip
def test_whole_words_are_banned(text: str, banned: bool) -> None:
    assert bool(WORDS.search(text)) == banned


def test_prose_leaves_out_code_tables_and_headings() -> None:
    page = "# A\n\none [two](three)\n```\ncode\n```\n| a | b |\n![x](y)\n    code\n- four\n"
    assert [line for _, line in prose(page) if line] == ["one two", "- four"]
