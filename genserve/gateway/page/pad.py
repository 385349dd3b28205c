"""A pad to draw on with a mouse, a finger or the keys, or to bring a picture to; and what comes from it."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from genserve.gateway.page.asking import Refused, in_base64
from genserve.gateway.page.catalogue import Model

PICTURE_MAX = 200_000  # characters of a picture of the pad: one of 224 x 224 pixels in colour
PREFIX = "data:image/png;base64,"
TOOLS = {"draw": "Draw", "erase": "Erase"}
MASKING = {"mask": "Mark what is filled"}
STROKES = {"seven": "A seven", "three": "A three", "scribble": "A scribble", "nothing": "Nothing"}


def pad(name: str, *, masks: bool) -> gr.HTML:
    """Return a pad; its value is what `sent` reads.

    Args:
        name: for screen readers.
        masks: a part can be marked.
    """
    folder = Path(__file__).parent
    return gr.HTML(
        html_template=_template(name, masks),
        js_on_load=(folder / "pad.js").read_text(),
        elem_classes="pad",
        value="",
    )


def _template(name: str, masks: bool) -> str:
    tools = TOOLS | (MASKING if masks else {})
    radios = "".join(
        f"<label><input type='radio' name='{name}' value='{value}'{' checked' if value == 'draw' else ''}>"
        f"{text}</label>"
        for value, text in tools.items()
    )
    more = (
        "<button type='button' class='lower'>Mark the lower half</button>"
        "<button type='button' class='unmark'>Remove the marks</button>"
        if masks
        else ""
    )
    strokes = "".join(
        f"<button type='button' data-strokes='{value}'>{text}</button>" for value, text in STROKES.items()
    )
    return (
        f"<div class='board' tabindex='0' role='application' aria-label='{name}: arrow keys move, "
        "space paints, shift with an arrow paints a line'>"
        "<canvas width='28' height='28'></canvas><canvas class='cover' width='28' height='28'></canvas>"
        "<span class='place' hidden></span></div>"
        f"<fieldset class='tools'><legend class='unseen'>Tool</legend>{radios}</fieldset>"
        f"<div class='row'>{strokes}{more}"
        "<label class='file'>Upload a picture<input type='file' accept='image/*'></label></div>"
        "<p class='note' role='status'></p>"
    )


def fitted(model: Model) -> str:
    """Return the value that gives a pad the size of a model's pictures."""
    _, height, width = model.shape
    return json.dumps({"picture": "", "mask": "", "width": width, "height": height})


def shown(model: Model, png: str) -> str:
    """Return the value that puts a picture, a PNG in base64, on a pad."""
    value: dict[str, Any] = json.loads(fitted(model))
    return json.dumps(value | {"picture": PREFIX + png})


def sent(model: Model, value: str) -> tuple[str, str | None]:
    """Return picture and mask of a pad in base64, as a model takes them; no mask if nothing is marked.

    Raises:
        Refused: there is none.
    """
    try:
        entries = json.loads(value)
        pictures = [str(entries[name]) for name in ("picture", "mask")]
    except (ValueError, TypeError, LookupError):
        raise Refused("The pad is empty: draw something.") from None
    picture, mask = pictures
    return _converted(model, picture), _converted(model, mask) if mask else None


def _converted(model: Model, url: str) -> str:
    """Return a PNG of the model's size and colours.

    Raises:
        Refused: the browser has sent something else.
    """
    channels, height, width = model.shape
    try:
        if not url.startswith(PREFIX) or len(url) > PICTURE_MAX:
            raise ValueError
        image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix(PREFIX))), formats=["PNG"])
        if image.size != (width, height):
            raise ValueError
        buffer = io.BytesIO()
        image.convert("L" if channels == 1 else "RGB").save(buffer, "PNG")
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        raise Refused("The pad does not have the model's size; choose the model again.") from None
    return in_base64(buffer.getvalue())
