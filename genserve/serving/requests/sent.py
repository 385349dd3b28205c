"""Pictures and masks in a request, as tensors of the model's size."""

from torch import Tensor

from genserve.runs.contract import Spec
from genserve.serving.fields import BadRequest
from genserve.serving.uploads import FORMATS, decoded


def picture(field: str, data: bytes, spec: Spec, number: int | None = None) -> Tensor:
    """Return the picture in a field, (C, H, W) in [-1, 1].

    Args:
        number: which one it is, if the field may have several.

    Raises:
        BadRequest: it is no picture of the model's size.
    """
    try:
        return decoded(data, spec.shape)
    except ValueError as error:
        c, h, w = spec.shape
        allowed = f"{w} x {h} pixels, {'gray' if c == 1 else 'colour'}, {', '.join(FORMATS)}"
        numbered = "" if number is None else f"{field} {number}: "
        raise BadRequest(field, f"{numbered}{error}", allowed) from None


def kept(mask: bytes | None, spec: Spec) -> Tensor | None:
    """Return the pixels that a mask keeps, the bright half of its grays, (1, H, W) bool; None without a mask.

    Raises:
        BadRequest: the mask is no picture of the model's size.
    """
    return None if mask is None else picture("mask", mask, spec).mean(0, keepdim=True) > 0
