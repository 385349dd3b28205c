"""Every rule of docs/pictures.md holds in training, in uploads and in evaluation."""

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from picture_files import (
    CASES,
    COLOUR,
    DEEP,
    GRAY,
    TRANSPOSED,
    Case,
    file,
    palette,
    raw_png,
    rows,
    tiff,
    turned,
)
from PIL import Image

from genserve import image_files as pictures
from genserve.data.pictures import DataConfig, load_images
from genserve.images import to_pixels
from genserve.measure import sources
from genserve.serving.uploads import decoded


def trained_on(given: bytes, folder: Path, channels: int) -> NDArray[Any]:
    (folder / "x.png").write_bytes(given)  # by whatever name: the content counts
    config = DataConfig(name="folder", root=str(folder), channels=channels)
    return load_images(config, "train").x[0].permute(1, 2, 0).numpy()


def uploaded(given: bytes, folder: Path, channels: int) -> NDArray[Any]:
    return to_pixels(decoded(given, (channels, 6, 6))[None])[0]


def measured(given: bytes, folder: Path, channels: int) -> NDArray[Any]:
    (folder / "x.png").write_bytes(given)
    return sources.read(folder, (channels, 6, 6), ())[0][0].permute(1, 2, 0).numpy()


def of_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    return np.asarray(Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")).reshape(
        6, 6, channels
    )


@pytest.mark.parametrize("use", [trained_on, uploaded, measured])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_picture_means_the_same_wherever_it_comes_in(
    case: Case, use: Callable[[bytes, Path, int], NDArray[Any]], tmp_path: Path
) -> None:
    refused = isinstance(case.expected, str)
    no_tiff = use is uploaded and case.data[:2] in (b"II", b"MM")
    warnings.simplefilter("ignore")  # as outside of a test; pytest puts its own filters back
    for channels in (1, 3):
        if refused or no_tiff:
            with pytest.raises(
                ValueError, match=case.expected if refused and not no_tiff else "not a pic"
            ) as error:
                use(case.data, tmp_path, channels)
            assert str(error.value).startswith(str(tmp_path / "x.png")) == (use is not uploaded)
            assert "\n" not in str(error.value)
        else:
            pixels = use(case.data, tmp_path, channels)
            np.testing.assert_array_equal(pixels, of_channels(case.expected, channels))


@pytest.mark.parametrize("orientation", TRANSPOSED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_size_that_counts_is_that_of_the_upright_picture(orientation: int, kind: str) -> None:
    given = file(COLOUR[:4], kind, exif=turned(orientation))
    upright = TRANSPOSED[orientation](COLOUR[:4])
    h, w, _ = upright.shape
    np.testing.assert_array_equal(pictures.read(given, size=(w, h)), upright)
    for wrong in ((h, w), (7, 4)):
        with pytest.raises(ValueError, match=f"{w} x {h} pixels, not|6 x 4 pixels, not 7 x 4"):
            pictures.read(given, size=wrong)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (file(GRAY), (6, 6, 1)),
        (file(DEEP), (6, 6, 1)),
        (tiff(">"), (6, 6, 1)),
        (file(Image.fromarray(GRAY).convert("LA")), (6, 6, 1)),
        (raw_png(16, 4, rows(np.full((6, 12), 65535, ">u2"))), (6, 6, 1)),
        (file(COLOUR), (6, 6, 3)),
        (palette(None, 5), (6, 6, 3)),
    ],
)
def test_a_picture_keeps_its_channels_where_none_are_asked_for(given: bytes, shape: tuple[int, ...]) -> None:
    assert pictures.read(given).shape == shape


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "x.png").mkdir()
    for name, message in (("gone.png", "a link to nothing"), ("x.png", "not a file")):
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            pictures.read(tmp_path / name)


@pytest.mark.parametrize("kind", pictures.FORMATS)
@given(st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3))
def test_a_damaged_file_is_a_picture_or_refused_and_nothing_else(
    kind: str, damage: list[tuple[int, bytes]]
) -> None:
    given = bytearray(file(COLOUR, kind))
    for at, written in damage:
        given[at : at + len(written)] = written
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(ValueError):
            assert pictures.read(bytes(given), size=(6, 6)).shape[:2] == (6, 6)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(file(GRAY))

    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refused)  # root may read everything
    with pytest.raises(ValueError, match=r"x\.png: cannot be read \(Permission denied\)$"):
        pictures.read(tmp_path / "x.png")


def test_every_ending_is_one_of_a_format() -> None:
    formats = {Image.registered_extensions()[ending] for ending in pictures.ENDINGS}
    assert formats == set(pictures.FORMATS)


def test_a_jpeg_of_many_scans_which_takes_minutes_is_refused_unread() -> None:
    file = io.BytesIO()
    Image.new("L", (64, 64), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    assert 1 < data.count(b"\xff\xda") < 12
    assert pictures.read(data).shape == (64, 64, 1)
    many = data[:-2] + b"\xff\xda" * pictures.SCANS_MAX + data[-2:]
    with pytest.raises(ValueError, match=r"scans, more than 64"):
        pictures.read(many)


def test_transparent_pixels_are_put_on_a_background_if_there_is_one() -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, :3] = (200, 100, 0)
    pixels[0, :, 3] = (255, 51, 0)  # opaque, a fifth, not at all
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    with pytest.raises(ValueError, match="put it on a background first"):
        pictures.read(file.getvalue())
    white = pictures.read(file.getvalue(), background=255)
    assert white.tolist() == [[[200, 100, 0], [244, 224, 204], [255, 255, 255]]]
    black = pictures.read(file.getvalue(), background=0)
    assert black.tolist() == [[[200, 100, 0], [40, 20, 0], [0, 0, 0]]]
    gray = io.BytesIO()
    Image.fromarray(np.dstack([pixels[..., 0], pixels[..., 3]])).save(gray, "PNG")
    assert pictures.read(gray.getvalue(), background=0).tolist() == [[[200], [40], [0]]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=1)
    assert pictures.read(file.getvalue(), background=255)[0, 1].tolist() == [255, 255, 255]
