"""Pixels survive every format; nothing wraps around; equal pictures are equal bytes."""

import io
import math
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from genserve.images import (
    GAP,
    enlarge,
    fitted,
    gif,
    grid,
    heat,
    normalise,
    npy,
    picture,
    png,
    to_pixels,
    zipped,
)


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


# ---- to pixels ---------------------------------------------------------------------------------------------


@given(st.one_of(st.floats(-1.5, 1.5, width=32), st.floats(-(2.0**100), 2.0**100, width=32)))
def test_a_pixel_is_the_nearest_level_and_never_wraps_around(value: float) -> None:
    (pixel,) = to_pixels(torch.full((1, 1, 1, 1), value)).flatten().tolist()
    assert abs(pixel - (min(max(value, -1), 1) + 1) * 127.5) <= 0.5 + 1e-4


def test_normalise_maps_bytes_onto_minus_one_to_one() -> None:
    x = normalise(torch.arange(256, dtype=torch.uint8)).double()
    np.testing.assert_allclose(x, np.linspace(-1, 1, 256), atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_beyond_the_range_clamp(dtype: torch.dtype) -> None:
    x = torch.tensor([-1.2, -1, 1, 1.2], dtype=dtype).view(1, 1, 1, 4)
    assert to_pixels(x).flatten().tolist() == [0, 0, 255, 255]


def test_every_byte_comes_back_from_the_range_of_training() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert to_pixels(normalise(every).view(1, 1, 16, 16)).flatten().tolist() == every.tolist()


def test_channels_move_last() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 4)
    assert (to_pixels(x) == [0, 128, 255]).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    x = torch.zeros(2, 1, 2, 2)
    x[1, 0, 0, 1] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        to_pixels(x)


# ---- layout ------------------------------------------------------------------------------------------------


@given(b=st.integers(1, 30), columns=st.one_of(st.none(), st.integers(1, 40)), c=st.sampled_from([1, 3]))
def test_each_picture_stands_at_its_place_in_the_grid_and_all_else_is_background(
    b: int, columns: int | None, c: int
) -> None:
    h, w = 3, 5
    pixels = random_pixels(b, h, w, c) // 2  # below the background
    sheet = grid(pixels, columns, background=200)
    across = min(b, columns) if columns else math.ceil(b**0.5)
    down = math.ceil(b / across)
    assert sheet.shape == (down * h + (down - 1) * GAP, across * w + (across - 1) * GAP, c)
    for k in range(b):
        top, left = k // across * (h + GAP), k % across * (w + GAP)
        np.testing.assert_array_equal(sheet[top : top + h, left : left + w], pixels[k])
        sheet[top : top + h, left : left + w] = 200
    assert (sheet == 200).all()


def test_enlarging_repeats_every_pixel_in_a_square() -> None:
    small = random_pixels(2, 3, 4, 3)
    large = enlarge(small, 3)
    for dy in range(3):
        for dx in range(3):
            np.testing.assert_array_equal(large[:, dy::3, dx::3], small)


# ---- formats -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("c", "mode"), [(1, "L"), (3, "RGB")])
def test_png_round_trip(c: int, mode: str) -> None:
    pixels = random_pixels(6, 5, c)
    opened = Image.open(io.BytesIO(png(pixels)))
    assert (opened.format, opened.mode, opened.size) == ("PNG", mode, (5, 6))
    np.testing.assert_array_equal(np.asarray(opened).reshape(6, 5, c), pixels)


def test_gif_round_trip_of_gray_frames() -> None:
    frames = list(random_pixels(4, 6, 5, 1))
    opened = Image.open(io.BytesIO(gif(frames, milliseconds=50, hold=1000)))
    assert opened.info["loop"] == 0  # for ever
    shown = [(np.asarray(f.convert("L")), f.info["duration"]) for f in ImageSequence.Iterator(opened)]
    for frame, (pixels, _) in zip(frames, shown, strict=True):
        np.testing.assert_array_equal(pixels, frame[..., 0])
    assert [duration for _, duration in shown] == [50, 50, 50, 1000]


def test_gif_keeps_few_colours_exactly() -> None:
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 40], [17, 34, 255]], np.uint8)
    frames = list(palette[np.random.default_rng(0).integers(0, 4, (3, 6, 5))])
    opened = Image.open(io.BytesIO(gif(frames)))
    for frame, shown in zip(frames, ImageSequence.Iterator(opened), strict=True):
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), frame)


def test_a_gif_that_stands_still_lasts_as_long() -> None:
    """Pillow joins equal frames into one; the time they take together stays."""
    frame = random_pixels(4, 4, 1)
    opened = Image.open(io.BytesIO(gif([frame] * 5, milliseconds=80, hold=1500)))
    assert sum(f.info["duration"] for f in ImageSequence.Iterator(opened)) == 4 * 80 + 1500


def test_npy_round_trip() -> None:
    pixels = random_pixels(3, 4, 5, 1)
    np.testing.assert_array_equal(np.load(io.BytesIO(npy(pixels)), allow_pickle=False), pixels)


def test_zip_round_trip() -> None:
    files = {f"{k}.png": png(row) for k, row in enumerate(random_pixels(3, 4, 5, 1))}
    with zipfile.ZipFile(io.BytesIO(zipped(files))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_equal_pictures_are_equal_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_pixels(3, 4, 5, 1)

    def encode() -> tuple[bytes, ...]:
        return png(pixels[0]), gif(list(pixels)), npy(pixels), zipped({"a": b"1", "b": b"2"})

    now = encode()
    monkeypatch.setattr("time.time", lambda: 2e9)  # a zip or PNG that carries the time would differ
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert encode() == now


def test_a_picture_of_one_channel_is_gray() -> None:
    assert picture(random_pixels(4, 5, 1)).mode == "L"
    assert picture(random_pixels(4, 5, 3)).mode == "RGB"


def test_heat_is_red_where_the_energy_rises_blue_where_it_falls_and_the_picture_elsewhere() -> None:
    x = torch.tensor([[[[-1.0, 1.0, 1.0, 0.0]]], [[[0.0, 0.0, 0.0, 0.0]]]])
    gradient = torch.tensor([[[[5.0, -5.0, 0.0, 2.5]]], [[[0.0, 0.0, 0.0, 0.0]]]])
    shown = to_pixels(heat(x, gradient))
    assert shown.shape == (2, 1, 4, 3)
    assert shown[0, 0].tolist() == [[255, 0, 0], [0, 0, 255], [64, 64, 64], [143, 16, 16]]
    assert (shown[1] == 32).all()  # a flat energy has no colour, and divides nothing by 0


def test_heat_of_a_colour_picture_is_over_its_gray() -> None:
    x = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    assert to_pixels(heat(x, torch.zeros_like(x))).tolist() == [[[[32, 32, 32]]]]


# ---- other sizes -------------------------------------------------------------------------------------------


def lanczos(n: int, side: int, size: int) -> np.ndarray:
    """The matrix (size, n) that resizes the middle `side` of n values by Lanczos' filter."""
    at = (n - side) / 2 + (np.arange(size)[:, None] + 0.5) * side / size - (np.arange(n) + 0.5)
    t = at / max(1.0, side / size)  # as wide as what a value of the result stands for
    rows = np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0)
    return rows / rows.sum(1, keepdims=True)


@pytest.mark.parametrize(("h", "w"), [(40, 40), (7, 7), (40, 64), (90, 30)])
@pytest.mark.parametrize("c", [1, 3])
def test_a_picture_of_another_size_is_its_middle_resized_by_lanczos(h: int, w: int, c: int) -> None:
    pixels, side = 100 + random_pixels(h, w, c) // 5, min(h, w)  # nothing leaves the range on the way
    middle = lanczos(h, side, 16), lanczos(w, side, 16)
    expected = np.einsum("yi,xj,ijc->yxc", *middle, pixels.astype(float))
    result = fitted(pixels, 16, 16)
    assert result.shape == (16, 16, c)
    assert np.abs(result - expected).max() < 1.5  # it is rounded after each direction


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    pixels = random_pixels(9, 5, 3)
    assert np.array_equal(fitted(pixels, 5, 9), pixels)
    assert fitted(random_pixels(1, 300, 1), 4, 4).shape == (4, 4, 1)
