"""Turn tensors in [-1, 1] into pictures for people: pixels, PNG, grids, strips, animations, archives."""

import io
import math
import zipfile
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

Pixels = NDArray[np.uint8]  # (..., H, W, C) with C = 1 or 3

GAP = 2  # pixels between the pictures of a grid
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every file in a zip, so that equal pictures are equal bytes


def normalise(x: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [-1, 1]; same shape."""
    return x.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Pixels:
    """Return (B, C, H, W) in [-1, 1] as (B, H, W, C) uint8: clamped, then rounded, so nothing wraps around.

    Raises:
        ValueError: x is not finite.
    """
    values = x.detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinity")
    pixels = np.rint((np.clip(values, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def heat(x: Tensor, gradient: Tensor) -> Tensor:
    """Return a heat map of a gradient over a picture, (B, 3, H, W) in [-1, 1].

    The picture is in dark gray. A pixel is red where the gradient is above 0, and blue where it is below,
    with full colour at the image's steepest pixel. Red of an energy: a brighter pixel would raise it, so it
    is too bright already. Red of a logit: a brighter pixel speaks for the class.

    Args:
        x: (B, C, H, W) in [-1, 1];  gradient: like x, or what each value adds.
    """
    g = gradient.mean(1)
    g = g / g.abs().flatten(1).amax(1).clamp(min=torch.finfo(g.dtype).tiny).view(-1, 1, 1)
    gray = x.mean(1) * 0.25 - 0.75
    up, down = g.clamp(min=0), (-g).clamp(min=0)
    rest = gray - (gray + 1) * (up + down)  # the gray fades where there is colour
    return torch.stack([rest + 2 * up, rest, rest + 2 * down], dim=1).clamp(-1, 1)


def fitted(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return the middle of a picture at another size, (height, width, C): no part of it is stretched.

    The largest part of the right proportions is cut from the middle and resized by Lanczos' filter, which
    averages where it shrinks.

    Args:
        pixels: (H, W, C) uint8.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    result = ImageOps.fit(picture(pixels), (width, height), Image.Resampling.LANCZOS)
    return np.array(result).reshape(height, width, -1)


def enlarge(pixels: Pixels, scale: int) -> Pixels:
    """Return (..., H, W, C) enlarged by a whole factor, nearest neighbour."""
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)


def sides(n: int, columns: int | None = None) -> tuple[int, int]:
    """Return rows and columns of a grid of n pictures, at least 1; as square as n allows if not given."""
    columns = min(n, columns or math.isqrt(n - 1) + 1)
    return math.ceil(n / columns), columns


def grid(pixels: Pixels, columns: int | None = None, background: int = 255) -> Pixels:
    """Lay out pictures (B, H, W, C) row by row, with a gap between them.

    Args:
        columns: None makes the grid as square as B allows.
        background: gray of the gaps, 0 to 255.

    Returns:
        (rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, C).
    """
    b, h, w, c = pixels.shape
    rows, columns = sides(b, columns)
    sheet = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, c), background, np.uint8)
    for k in range(b):
        top, left = k // columns * (h + GAP), k % columns * (w + GAP)
        sheet[top : top + h, left : left + w] = pixels[k]
    return sheet


def picture(pixels: Pixels) -> Image.Image:
    """Return (H, W, C) as a Pillow image, gray for one channel."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def png(pixels: Pixels) -> bytes:
    """Encode (H, W, C) at compression level 1; higher levels cost time and save nothing on small pictures."""
    buffer = io.BytesIO()
    picture(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def gif(frames: Sequence[Pixels], milliseconds: int = 80, hold: int = 1500) -> bytes:
    """Encode frames (H, W, C) as an endless animation; the last one stays for `hold` milliseconds."""
    first, *rest = (picture(frame).convert("L" if frame.shape[-1] == 1 else "RGB") for frame in frames)
    buffer = io.BytesIO()
    durations = [milliseconds] * len(rest) + [hold]
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return buffer.getvalue()


def npy(pixels: Pixels) -> bytes:
    """Encode (B, H, W, C) uint8 in NumPy's own file format."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Pack files into a zip without further compression; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
    return buffer.getvalue()
