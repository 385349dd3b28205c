"""docs/course.md shows what a server really answers: its commands are run, its answers compared."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_server import ROOT, Server

from genserve.commands.course_page import PAGE, PICTURES, renewed

pytestmark = pytest.mark.server
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def test_the_page_of_the_course_shows_what_the_server_answers(course: Server, tmp_path: Path) -> None:
    page = (ROOT / PAGE).read_text()
    today = renewed(page, f"http://127.0.0.1:{course.port}", tmp_path)
    words, words_today = (" ".join(NUMBER.sub("x", text).split()) for text in (page, today))
    assert words == words_today
    numbers, numbers_today = (np.array(NUMBER.findall(text), float) for text in (page, today))
    np.testing.assert_allclose(numbers, numbers_today, rtol=0.01, atol=2e-4)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {path.name for path in (ROOT / PICTURES).iterdir()}
    assert files == {Path(name).name for name in re.findall(r"\]\((images/course/[^)]+)\)", page)}
    for name in files:
        shots = [np.asarray(Image.open(folder / name), int) for folder in (ROOT / PICTURES, tmp_path)]
        assert np.abs(shots[0] - shots[1]).mean() < 1, name
