"""Read a picture file, whether from a training folder, an upload or an evaluated folder.

docs/pictures.md has the rules. A picture is read as it looks, or refused in a sentence that says why: no
value is clamped, no transparency dropped and no frame left out.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from genserve.images import Pixels

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")

GRAY = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")  # modes of Pillow
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
GRAY_ALPHA_16 = "LA;16B"  # Pillow reads it as RGBA
# Pillow multiplies these pixels of a PNG, but leaves the transparent colour as it is in the file.
SCALED = {"L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}
# start and step of the passes of an interlaced PNG: x, y, dx, dy
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
START_OF_SCAN = b"\xff\xda"
SCANS_MAX = 64  # of a JPEG: a progressive one has about ten, and each costs as much as the whole picture
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF

# What Pillow raises for a damaged file: tests/test_image_files.py damages thousands.
DAMAGE: tuple[type[Exception], ...] = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError,
    struct.error, zlib.error, Warning,
)  # fmt: skip


def read(
    source: Path | bytes,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    formats: tuple[str, ...] = FORMATS,
    background: int | None = None,
    most: int | None = None,
) -> Pixels:
    """Return a picture's pixels, upright, (H, W, C) uint8.

    Args:
        source: a file, or its contents.
        channels: 1 converts to gray, 3 to colour; None keeps those of the picture.
        size: (W, H) in pixels that the upright picture must have; None takes any.
        formats: some of FORMATS.
        background: gray, 0 to 255, behind transparent pixels; None refuses them.
        most: pixels that it may have; more are refused before they are unpacked.

    Raises:
        ValueError: it is not such a picture; the message begins with the file's name, if it has one.
    """
    try:
        picture, raw = _upright(_content(source), size, formats, most)
        gray = picture.mode in GRAY or raw == GRAY_ALPHA_16
        if _transparent(picture, raw):
            if background is None or picture.mode.startswith("I;16"):
                raise ValueError("transparent in places: put it on a background first")
            behind = Image.new("RGBA", picture.size, (background,) * 3 + (255,))
            picture = Image.alpha_composite(behind, picture.convert("RGBA")).convert("RGB")
        picture.info.pop("transparency", None)  # of a colour that no pixel has; Pillow would warn about it
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
        pixels = np.array(picture.convert("L" if (channels or (1 if gray else 3)) == 1 else "RGB"))
    except ValueError as error:
        raise ValueError(f"{source}: {error}" if isinstance(source, Path) else str(error)) from None
    return pixels.reshape(*pixels.shape[:2], -1)


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, Path):
        try:
            if not source.is_file():  # a pipe would never end
                raise ValueError("not a file" if source.exists() else "a link to nothing")
            source = source.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from None
    if not source:
        raise ValueError("an empty file")
    return source


def _upright(
    data: bytes, size: tuple[int, int] | None, formats: tuple[str, ...], most: int | None
) -> tuple[Image.Image, str]:
    """Return the only picture of a file, turned as its EXIF says, and the raw mode of a PNG."""
    with _explained(formats):
        picture = Image.open(io.BytesIO(data), formats=formats)
        # A phone's MPO is a JPEG with depth or a second view after it.
        frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ValueError(f"{frames} frames or pages, must be one picture")
    if size not in (None, picture.size, picture.size[::-1]):  # before anything is unpacked
        raise _another_size(picture.size, size)
    if most is not None and picture.width * picture.height > most:
        raise ValueError(f"{picture.width} x {picture.height} pixels, more than {most}")
    if picture.format == "GIF" and picture.tile and picture.tile[0][1] != (0, 0, *picture.size):
        raise ValueError("its frame does not fill it: save it as one whole picture")
    if picture.format in ("JPEG", "MPO") and (scans := data.count(START_OF_SCAN)) > SCANS_MAX:
        raise ValueError(f"{scans} scans, more than {SCANS_MAX}: save it again")
    if picture.format == "PNG":
        with _explained(formats):
            if not _has_all_rows(data):
                raise ValueError("rows are missing at its end")
    raw = str(picture.tile[0][3]) if picture.format == "PNG" and picture.tile else ""
    with _explained(formats):
        ImageOps.exif_transpose(picture, in_place=True)
    if size not in (None, picture.size):
        raise _another_size(picture.size, size)
    if picture.mode == "P" and int(np.asarray(picture).max()) >= _colours(picture):
        raise ValueError("pixels beyond its palette")
    if picture.mode in ("I", "F"):
        raise ValueError("32-bit, signed or float gray, whose white is not known: save it with 8 or 16 bits")
    if picture.mode not in GRAY + COLOUR:
        raise ValueError(f"colours of the kind {picture.mode}: save it in gray or RGB")
    if picture.format == "TIFF" and picture.mode.startswith("I;16"):
        tags = picture.tag_v2  # type: ignore[attr-defined]
        if tags.get(BITS) != (16,) or tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            raise ValueError("gray of 12 bits or with white at 0: save it with 8 or 16 bits and black at 0")
    return picture, raw


def _has_all_rows(data: bytes) -> bool:
    """Return whether a PNG's stream holds every row; Pillow leaves missing rows black.

    Source: PNG specification (W3C, third edition), sections 7.3, 8.1 (Adam7) and 11.2.1.
    """
    header: tuple[int, ...] = struct.unpack(">IIBBBBB", data[16:29])
    width, height, depth, colour, _, _, interlaced = header
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    n_bytes = sum(h * (1 + -(-w * bits // 8)) for w, h in sizes if w > 0 and h > 0)
    stream: list[bytes] = []
    start = 8
    while start < len(data):
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        if kind == b"IDAT":
            stream.append(data[start + 8 : start + 8 + length])
        if kind == b"IEND":
            break
        start += 12 + length
    return len(zlib.decompressobj().decompress(b"".join(stream), n_bytes)) >= n_bytes


def _colours(picture: Image.Image) -> int:
    """Return the number of colours in the palette of a picture."""
    palette = picture.palette
    return len(palette.palette) // len(palette.mode) if palette else 0


def _another_size(size: tuple[int, int], expected: tuple[int, int] | None) -> ValueError:
    assert expected is not None
    return ValueError(f"{size[0]} x {size[1]} pixels, not {expected[0]} x {expected[1]}")


def _transparent(picture: Image.Image, raw: str) -> bool:
    """Return whether any pixel is less than opaque."""
    if "A" in picture.getbands():
        return bool(np.asarray(picture.getchannel("A")).min() < 255)
    key = picture.info.get("transparency")
    if key is None:
        return False
    values = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    if isinstance(key, bytes):  # alpha of the palette's first colours
        alpha = np.full(256, 255, np.uint8)
        alpha[: len(key)] = np.frombuffer(key[:256], np.uint8)
        return bool((alpha[values] < 255).any())
    colour = np.floor(np.multiply(key, SCALED.get(raw, 1.0)))
    return bool((np.atleast_3d(values) == colour).all(-1).any())


@contextmanager
def _explained(formats: tuple[str, ...]) -> Iterator[None]:
    """Turn the errors and warnings of Pillow into a ValueError of one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow opens some files with only a warning
        warnings.filterwarnings("ignore", "Image appears to be a malformed MPO")  # its first picture is whole
        try:
            yield
        except UnidentifiedImageError:
            raise ValueError(f"not a picture ({', '.join(formats)})") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(f"too many pixels, at most {Image.MAX_IMAGE_PIXELS} can be unpacked") from None
        except DAMAGE as error:
            raise ValueError(f"a broken picture file ({' '.join(str(error).split())})") from None
