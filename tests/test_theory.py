"""docs/theory.md: every number in it is printed by the examples, question by question."""

import contextlib
import io
import re
import runpy
from collections.abc import Iterator

import pytest
from real_server import ROOT

PAGE = (ROOT / "docs/theory.md").read_text()
NUMBER = re.compile(r"(?<![\w^.-])-?\d+(?:\.\d+)?(?![\w.]*\w)")
UNPRINTED = re.compile(  # formulas, programs, sources
    r"^```.*?^```|^    .*?$|^Source:.*?(?=\n\n|\Z)|\$`[^`]*`\$|`[^`]*`", re.MULTILINE | re.DOTALL
)


def sections(page: str) -> dict[str, str]:
    """Return the text below each question of a page."""
    parts = re.split(r"^#+ (.*)\n", page, flags=re.MULTILINE)[1:]
    both = zip(parts[::2], parts[1::2], strict=True)
    return {question: text for question, text in both if "```text" in text}


def printed(name: str) -> dict[str, str]:
    """Return what an example prints below each question."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(str(ROOT / f"examples/{name}.py"), run_name="__main__")
    parts = re.split(r"^# (.*)\n", output.getvalue(), flags=re.MULTILINE)[1:]
    return {question: text.strip("\n") for question, text in zip(parts[::2], parts[1::2], strict=True)}


def strays(prose: str, output: str) -> list[str]:
    """Return the numbers of prose that the output has not."""
    known = {float(number) for number in NUMBER.findall(output)}
    return [number for number in NUMBER.findall(UNPRINTED.sub("", prose)) if float(number) not in known]


@pytest.fixture(scope="module")
def outputs() -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ROOT / "examples")  # as a program has its own folder
        yield printed("theory") | printed("gradients")


def test_the_page_answers_the_questions_of_the_examples_in_their_order(outputs: dict[str, str]) -> None:
    assert list(sections(PAGE)) == list(outputs)
    assert len(outputs) > 15


def test_the_page_shows_what_the_examples_print(outputs: dict[str, str]) -> None:
    for question, text in sections(PAGE).items():
        (shown,) = re.findall(r"^```text\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
        assert shown == outputs[question], question


def test_no_number_in_the_prose_is_from_elsewhere(outputs: dict[str, str]) -> None:
    for question, text in sections(PAGE).items():
        assert not strays(text, f"{question} {outputs[question]}"), question
    introduction = PAGE.partition("\n## ")[0]
    assert not strays(introduction, " ".join(outputs.values()))


@pytest.mark.parametrize(
    ("prose", "stray"),
    [
        ("from 0.5 to 3", []), ("from 0.6 to 3", ["0.6"]), ("x_0 and x^2, `7`, $`8 x`$", []),
        ("it is -3", ["-3"]), ("a\n\nSource: A 2022,\n4.\n\nb", []), ("```math\n9\n```\n\n    9\n", []),
        ("at 4 x 4.", ["4", "4"]), ("from 0.50 on", []),
    ],
)  # fmt: skip
def test_a_number_that_is_not_printed_is_noticed(prose: str, stray: list[str]) -> None:
    assert strays(prose, "values 0.5 3.0") == stray
