"""Every file, module and heading that a page, a docstring or a comment names exists."""

import re
from pathlib import Path

import pytest
from prose import pages, place, programs, remarks
from real_server import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:deploy|docs|genserve|handlers|scripts|tests|training|weights)/[\w./-]+)`")
MODULE = re.compile(r"\bgenserve(?:\.\w+)+")


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing(path: Path) -> list[str]:
    """Return what a page names and does not exist."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    names = [name for name in FILE.findall(text) if not (ROOT / name).exists()]
    for link in LINK.findall(text):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            names.append(link)
    return names


@pytest.mark.parametrize("path", pages(), ids=place)
def test_a_page_names_files_that_exist(path: Path) -> None:
    assert not missing(path)


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, or a name that stands in one."""
    *folders, last = name.split(".")
    module = ROOT.joinpath(*folders)
    if (module / last).is_dir() or (module / f"{last}.py").is_file():
        return True
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    return file.is_file() and re.search(rf"\b{last}\b", file.read_text()) is not None


def test_docstrings_and_comments_name_modules_that_exist() -> None:
    names = {
        (place(path), name.removesuffix(".py"))
        for path in programs()
        for _, text in remarks(path.read_text())
        for name in MODULE.findall(text)
    }
    assert len(names) > 5
    assert {(page, name) for page, name in names if not exists(name)} == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("genserve.sampling", True),
        ("genserve.sampling.noise", True),
        ("genserve.sampling.noise.Streams", True),
        ("genserve.__version__", True),
        ("genserve.diffusion", False),
        ("genserve.sampling.noise.NoSuchName", False),
        ("genserve.nowhere.noise", False),
    ],
)
def test_a_name_exists_as_a_module_or_in_one(name: str, expected: bool) -> None:
    assert exists(name) == expected
