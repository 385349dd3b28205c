"""Pictures that a client sends: files to tensors in [-1, 1]. Only `resized` takes those of another size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genserve import image_files
from genserve.images import fitted, normalise

# No TIFF: its library writes a line into the server's log for every file that a client damages.
FORMATS = tuple(name for name in image_files.FORMATS if name != "TIFF")
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


def is_picture(data: bytes | bytearray) -> bool:
    """Return whether bytes begin as a picture file does."""
    return data.startswith(SIGNATURES)


def decoded(data: bytes, shape: Sequence[int]) -> Tensor:
    """Return a picture, (C, H, W) in [-1, 1]; gray where C is 1, colour where it is 3.

    Args:
        data: a file of one of FORMATS.
        shape: (C, H, W) that it must have; other modes than the model's are converted, other sizes refused.

    Raises:
        ValueError: it is no such picture.
    """
    c, h, w = shape
    pixels = image_files.read(data, c, (w, h), FORMATS)
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1))


def resized(data: bytes, shape: Sequence[int], invert: bool, most: int) -> tuple[Tensor, tuple[int, int]]:
    """Return a picture of any size at the model's, (C, H, W) in [-1, 1], and the (W, H) that it had.

    `images.fitted` says how. What is transparent is black, in an inverted picture white.

    Args:
        data: a file of one of FORMATS.
        shape: (C, H, W) of the model; other modes are converted.
        invert: dark becomes bright.
        most: pixels that it may have.

    Raises:
        ValueError: it is no picture, or too large.
    """
    c, h, w = shape
    pixels = image_files.read(data, c, None, FORMATS, background=255 if invert else 0, most=most)
    height, width = pixels.shape[:2]
    x = normalise(torch.from_numpy(fitted(pixels, w, h)).permute(2, 0, 1))
    return -x if invert else x, (width, height)
