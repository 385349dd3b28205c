"""What the tests of all training programs share."""

from pathlib import Path

import pytest
from small_programs import draw_pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of eight dark pictures of two classes, and of four held-out ones."""
    for part, n in (("train", 4), ("test", 2)):
        draw_pictures(tmp_path / "pictures" / part / "a", n, 0, 60)
        draw_pictures(tmp_path / "pictures" / part / "b", n, 60, 120)
    return tmp_path / "pictures"
