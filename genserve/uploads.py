"""Pictures that a client sends: base64 text to tensors in [-1, 1]. Nothing is resized, nothing guessed."""

import base64
import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from genserve.base64_text import decode
from genserve.images import normalise

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
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
    data = decode(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of some pictures that it should not open
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.size != (w, h):  # known before anything is unpacked
                    raise ValueError(
                        f"{picture.width} x {picture.height} pixels, this model's have {w} x {h}"
                    )
                if "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
                    raise ValueError("it is transparent in places")
                pixels = np.array(picture.convert("L" if c == 1 else "RGB"))
    except UnidentifiedImageError:
        raise ValueError(f"not a picture ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"too many pixels, this model's have {w} x {h}") from None
    except (OSError, SyntaxError, Warning):  # what Pillow says of a broken file
        raise ValueError("a broken picture file") from None
    return normalise(torch.from_numpy(pixels).reshape(h, w, c).permute(2, 0, 1))
