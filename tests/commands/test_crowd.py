"""When a client of a crowd calls a picture wrong."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from genserve.commands.crowd import alike


def png(*values: int) -> str:
    file = io.BytesIO()
    Image.fromarray(np.array([values], np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("drawn", "right"),
    [
        ([png(9, 200), png(7)], True),
        ([png(10, 199), png(7)], True),
        ([png(11, 200), png(7)], False),
        ([png(9, 200, 0), png(7)], False),  # another size
        ([png(7), png(9, 200)], False),
        ([png(9, 200)], False),
    ],
)
def test_a_picture_is_right_but_for_rounding(drawn: list[str], right: bool) -> None:
    assert alike(tuple(drawn), (png(9, 200), png(7))) == right
