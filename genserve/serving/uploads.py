"""Pictures that a client sends: base64 text to tensors in [-1, 1]. Nothing is resized, nothing guessed."""

import base64
from collections.abc import Sequence

import torch
from torch import Tensor

from genserve import image_files as pictures
from genserve.images import normalise
from genserve.serving.base64_text import decode

# No TIFF: its library writes a line into the server's log for every file that a client damages.
FORMATS = tuple(name for name in pictures.FORMATS if name != "TIFF")
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


def is_picture(data: bytes | bytearray) -> bool:
    """Return whether bytes begin as a picture file does."""
    return data.startswith(SIGNATURES)


def encoded(data: bytes) -> str:
    """Return a file as text, in base64."""
    return base64.b64encode(data).decode()


def decoded(text: str, shape: Sequence[int]) -> Tensor:
    """Return a picture, (C, H, W) in [-1, 1]; gray where C is 1, colour where it is 3.

    Args:
        text: a file of one of FORMATS, in a form that `base64_text.decode` reads.
        shape: (C, H, W) that it must have; other modes than the model's are converted, other sizes refused.

    Raises:
        ValueError: it is no such picture.
    """
    c, h, w = shape
    pixels = pictures.read(decode(text), c, (w, h), FORMATS)
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1))
