"""Pictures that clients send: what is taken as it is, and what is refused."""

import base64
import io
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genserve.images import to_pixels
from genserve.serving.uploads import FORMATS, decoded, is_picture

GRAY, COLOUR = (1, 6, 5), (3, 6, 5)  # (C, H, W)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)


def file(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_known_by_its_first_bytes_and_read(kind: str):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file(Image.fromarray(PIXELS), kind, **options)
    assert is_picture(data)
    x = decoded(data, COLOUR)
    assert x.shape == COLOUR
    if kind in ("PNG", "BMP", "WEBP"):  # the others change pixels
        assert (to_pixels(x[None])[0] == PIXELS).all()


def test_a_picture_comes_back_as_it_left():
    gray = PIXELS[..., 0]
    x = decoded(file(Image.fromarray(gray)), GRAY)
    assert (to_pixels(x[None])[0, ..., 0] == gray).all()
    assert (x.min() >= -1, x.max() <= 1) == (True, True)


def test_gray_and_colour_are_turned_into_each_other():
    gray = Image.fromarray(PIXELS[..., 0])
    assert torch.equal(decoded(file(gray), COLOUR), decoded(file(gray), GRAY).expand(COLOUR))
    assert decoded(file(Image.fromarray(PIXELS)), GRAY).shape == GRAY
    assert decoded(file(gray.convert("1")), GRAY).abs().unique().tolist() == [1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (file(Image.new("L", (6, 5))), "6 x 5 pixels, not 5 x 6"),
        (file(Image.new("1", (14_000, 14_000))), "too many pixels"),  # of which Pillow only warns
        (file(Image.new("LA", (5, 6))), "transparent"),
        (file(Image.new("L", (5, 6)), transparency=0), "transparent"),
        (file(Image.fromarray(PIXELS[..., 0]))[:55], "broken"),
        (file(Image.new("L", (5, 6)), "TIFF"), "not a picture"),
        (b"GIF89a but nothing else", "not a picture|broken"),
        (b"", "empty"),
    ],
)
def test_what_is_no_picture_of_the_model_s_is_refused(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        decoded(data, GRAY)


@given(st.integers(0, 60), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_a_picture_or_refused_and_nothing_else(at: int, damage: bytes):
    data = bytearray(file(Image.fromarray(PIXELS[..., 0])))
    data[at : at + len(damage)] = damage
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(ValueError):
            assert decoded(base64.b64encode(data).decode(), GRAY).shape == GRAY
