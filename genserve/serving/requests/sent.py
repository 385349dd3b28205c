"""Pictures and masks in a request, as tensors of the model's size."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from genserve.serving.fields import BadRequest, field
from genserve.serving.limits import SAMPLES_MAX
from genserve.serving.uploads import FORMATS, decoded


def pictures_field() -> Any:
    """Return the field of pictures that must have the model's size."""
    return field(
        None,
        "base64 in JSON, one or a list; a file in multipart; or the whole body one picture file",
        f"1 to {SAMPLES_MAX} pictures of the model's size",
        file=True,
        body=True,
        repr=False,  # a client's pictures belong in no log
    )


def picture(name: str, data: bytes, shape: Sequence[int], number: int | None = None) -> Tensor:
    """Return the picture in a field, (C, H, W) in [-1, 1].

    Args:
        shape: (C, H, W) of the model.
        number: which one it is, if the field may have several.

    Raises:
        BadRequest: it is no picture of the model's size.
    """
    try:
        return decoded(data, shape)
    except ValueError as error:
        c, h, w = shape
        allowed = f"{w} x {h} pixels, {'gray' if c == 1 else 'colour'}, {', '.join(FORMATS)}"
        numbered = "" if number is None else f"{name} {number}: "
        raise BadRequest(name, f"{numbered}{error}", allowed) from None


def kept(mask: bytes | None, shape: Sequence[int]) -> Tensor | None:
    """Return the pixels that a mask keeps, the bright half of its grays, (1, H, W) bool; None without a mask.

    Raises:
        BadRequest: the mask is no picture of the model's size.
    """
    return None if mask is None else picture("mask", mask, shape).mean(0, keepdim=True) > 0
