"""Picture files of every kind in the table of docs/pictures.md, each with its pixels or why it is refused."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)
GRAY = COLOUR[..., 1]
DEEP = GRAY.astype(np.uint16) * 257  # the same picture in 16 bits
BETWEEN = RNG.integers(0, 2**16, (6, 6)).astype(np.uint16)
TRANSPOSED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # EXIF orientation -> what makes it upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def file(picture: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a picture file."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def raw_png(bits: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of 6 x 6 pixels in a depth that Pillow does not write; a row begins with its filter 0."""
    head = struct.pack(">IIBBBBB", 6, 6, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def rows(pixels: NDArray[Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def tiff(order: str = "<", bits: int = 16, zero: int = 1, kind: int = 1) -> bytes:
    """Return a 16-bit gray TIFF; zero: 1 is black, 0 is white; kind: 1 is unsigned, 2 is signed."""
    tags = [(256, 6), (257, 6), (258, bits), (259, 1), (262, zero), (273, 0), (277, 1), (278, 6), (279, 72)]
    tags += [(339, kind)]
    strip = 8 + 2 + 12 * len(tags) + 4
    entries = [
        struct.pack(order + "HHIHH", tag, 3, 1, strip if tag == 273 else value, 0) for tag, value in tags
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return head + b"".join(entries) + bytes(4) + DEEP.astype(order + "u2").tobytes()


def with_alpha(alpha: int) -> NDArray[Any]:
    """The colour picture with an alpha channel that is opaque but for one pixel."""
    channel = np.full((6, 6, 1), 255, np.uint8)
    channel[2, 3] = alpha
    return np.concatenate([COLOUR, channel], axis=2)


def palette(transparency: int | bytes | None, used: int, kind: str = "PNG") -> bytes:
    """Return a picture with a palette of gray whose first pixel has colour 0, the others `used`."""
    indices = np.full((6, 6), used, np.uint8)
    indices[0, 0] = 0
    picture = Image.fromarray(indices, "L").convert("P")
    picture.putdata(indices.flatten().tolist())
    picture.putpalette([value for k in range(256) for value in (k, 255 - k, k)])
    return file(picture, kind, **({} if transparency is None else {"transparency": transparency}))


def small_gif() -> bytes:
    """Return a GIF of 6 x 6 pixels whose one frame has 5 x 6."""
    data = bytearray(file(Image.fromarray(GRAY), "GIF"))
    frame = data.index(b",\0\0\0\0\6\0\6\0")
    data[frame + 5] = 5
    return bytes(data)


PALETTE = np.full((6, 6, 3), (5, 250, 5), np.uint8)
PALETTE[0, 0] = (0, 255, 0)
FRAMES = [Image.fromarray(np.full((6, 6), k, np.uint8)) for k in (10, 20, 30)]
NINE = np.full((6, 6), 9, np.uint8)
EVEN = np.full((6, 6, 3), (40, 80, 120), np.uint8)


def animation(kind: str) -> bytes:
    return file(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:])


class Case(NamedTuple):
    name: str
    data: bytes
    expected: NDArray[Any] | str  # its pixels, or why it is refused


def jpeg(picture: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(file(picture, "JPEG"))))


CASES = [
    Case("bits-1", file(Image.fromarray(GRAY).convert("1", dither=Image.Dither.NONE)),
         np.where(GRAY > 127, 255, 0).astype(np.uint8)),
    Case("bits-2", raw_png(2, 0, rows(np.tile(np.uint8([0b00011011, 0b11100000]), (6, 1)))),
         np.tile(np.uint8([0, 85, 170, 255, 255, 170]), (6, 1))),
    Case("bits-8", file(GRAY), GRAY),
    Case("colour", file(COLOUR), COLOUR),
    Case("bmp", file(COLOUR, "BMP"), COLOUR),
    Case("webp", file(COLOUR, "WEBP", lossless=True), COLOUR),
    Case("jpeg", file(COLOUR, "JPEG"), jpeg(COLOUR)),
    Case("gif", file(GRAY, "GIF"), GRAY),
    Case("cmyk", file(Image.fromarray(EVEN).convert("CMYK"), "JPEG", quality=100),
         np.asarray(Image.open(io.BytesIO(file(Image.fromarray(EVEN).convert("CMYK"), "JPEG", quality=100)))
                    .convert("RGB"))),
    Case("lab", file(Image.new("LAB", (6, 6), (100, 20, 30)), "TIFF"), "colours of the kind LAB"),
    # depth
    Case("png-16", file(DEEP), GRAY),
    Case("png-16-rounded", file(BETWEEN), np.rint(BETWEEN / 257).astype(np.uint8)),
    Case("tiff-16", tiff(), GRAY),
    Case("tiff-16-of-pillow", file(DEEP, "TIFF"), GRAY),
    Case("tiff-16-big-endian", tiff(">"), GRAY),
    Case("png-16-colour", raw_png(16, 2, rows((COLOUR.astype(np.uint16) * 257).astype(">u2"))), COLOUR),
    Case("png-16-alpha", raw_png(16, 4, rows(np.stack([DEEP, DEEP | 65535], 2).astype(">u2"))), GRAY),
    Case("tiff-12", tiff(bits=12), "12 bits"),
    Case("tiff-16-white-is-0", tiff(zero=0), "white at 0"),
    Case("tiff-32", file(GRAY.astype(np.int32) * 100_000, "TIFF"), "32-bit, signed or float"),
    Case("tiff-16-signed", tiff(kind=2), "32-bit, signed or float"),
    Case("tiff-float", file(GRAY.astype(np.float32), "TIFF"), "32-bit, signed or float"),
    # alpha
    Case("rgba-opaque", file(with_alpha(255)), COLOUR),
    Case("rgba-transparent", file(with_alpha(254)), "transparent in places"),
    Case("webp-opaque", file(with_alpha(255), "WEBP", lossless=True), COLOUR),
    Case("webp-transparent", file(with_alpha(0), "WEBP", lossless=True), "transparent in places"),
    Case("la-opaque", file(Image.fromarray(GRAY).convert("LA")), GRAY),
    Case("la-transparent", file(Image.fromarray(np.stack([GRAY, GRAY], 2), "LA")), "transparent in places"),
    Case("palette", palette(None, 5), PALETTE),
    Case("palette-unused-index", palette(7, 5), PALETTE),
    Case("palette-transparent-index", palette(5, 5), "transparent in places"),
    Case("palette-unused-alpha", palette(bytes([255, 9, 9, 9, 9]), 5), PALETTE),
    Case("palette-transparent-alpha", palette(bytes([200, 9]), 5), "transparent in places"),
    Case("gif-transparent", palette(5, 5, "GIF"), "transparent in places"),
    Case("gif-unused-index", palette(7, 5, "GIF"), PALETTE),
    Case("gray-unused-colour", file(NINE, transparency=3), NINE),
    Case("gray-transparent-colour", file(NINE, transparency=9), "transparent in places"),
    Case("rgb-unused-colour", file(EVEN, transparency=(40, 80, 121)), EVEN),
    Case("rgb-transparent-colour", file(EVEN, transparency=(40, 80, 120)), "transparent in places"),
    Case("bits-1-transparent", raw_png(1, 0, rows(np.full((6, 1), 255, np.uint8)), (b"tRNS", b"\0\1")),
         "transparent in places"),
    Case("bits-2-transparent", raw_png(2, 0, rows(np.full((6, 2), 255, np.uint8)), (b"tRNS", b"\0\3")),
         "transparent in places"),
    Case("bits-4-unused", raw_png(4, 0, rows(np.full((6, 3), 0x33, np.uint8)), (b"tRNS", b"\0\2")),
         np.full((6, 6), 51, np.uint8)),
    Case("png-16-transparent", raw_png(16, 0, rows(np.full((6, 6), 999, ">u2")), (b"tRNS", b"\3\xe7")),
         "transparent in places"),
    Case("png-16-unused", raw_png(16, 0, rows(np.full((6, 6), 257, ">u2")), (b"tRNS", b"\3\xe7")),
         np.full((6, 6), 1, np.uint8)),
    Case("png-16-colour-transparent",
         raw_png(16, 2, rows(np.full((6, 18), 999, ">u2")), (b"tRNS", b"\3\xe7" * 3)),
         "transparent in places"),
    # EXIF
    *[Case(f"exif-{k}-png", file(COLOUR, exif=turned(k)), turn(COLOUR)) for k, turn in TRANSPOSED.items()],
    *[Case(f"exif-{k}-jpeg", file(COLOUR, "JPEG", exif=turned(k)), turn(jpeg(COLOUR)))
      for k, turn in TRANSPOSED.items()],
    *[Case(f"exif-{k}-16", file(DEEP, exif=turned(k)), turn(GRAY)) for k, turn in TRANSPOSED.items()],
    *[Case(f"exif-{k}-webp", file(COLOUR, "WEBP", lossless=True, exif=turned(k)), turn(COLOUR))
      for k, turn in TRANSPOSED.items()],
    *[Case(f"exif-{k}-tiff", file(COLOUR, "TIFF", exif=turned(k)), turn(COLOUR))
      for k, turn in TRANSPOSED.items()],
    # animation
    Case("gif-animation", animation("GIF"), "3 frames or pages"),
    Case("png-animation", animation("PNG"), "3 frames or pages"),
    Case("webp-animation", animation("WEBP"), "3 frames or pages"),
    Case("tiff-pages", animation("TIFF"), "3 frames or pages"),
    Case("mpo", file(Image.fromarray(COLOUR), "MPO", save_all=True, append_images=FRAMES[1:2]), jpeg(COLOUR)),
    Case("jpeg-of-bad-mpf",
         file(COLOUR, "JPEG").replace(b"\xff\xd8", b"\xff\xd8\xff\xe2\0\x0fMPF\0nonsense.", 1), jpeg(COLOUR)),
    # damage
    Case("empty", b"", "an empty file"),
    Case("text", b"I am no picture", "not a picture"),
    Case("bomb", file(Image.new("1", (14_000, 14_000))), "too many pixels"),  # of which Pillow raises
    Case("small-bomb", file(Image.new("1", (9_500, 9_500))), "too many pixels"),  # of which Pillow warns
    Case("torn-png", file(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8))[:-40], "a broken picture file"),
    Case("png-without-its-last-rows", raw_png(8, 0, rows(GRAY)[:21]), "rows are missing at its end"),
    Case("palette-missing", raw_png(8, 3, rows(GRAY)), "pixels beyond its palette"),
    Case("palette-too-short", raw_png(8, 3, rows(GRAY), (b"PLTE", bytes(48))), "pixels beyond its palette"),
    Case("gif-smaller-than-its-screen", small_gif(), "its frame does not fill it"),
    Case("torn-gif", file(GRAY, "GIF")[:-30], "a broken picture file"),
    Case("torn-jpeg", file(COLOUR, "JPEG")[:-200], "a broken picture file"),
]  # fmt: skip
