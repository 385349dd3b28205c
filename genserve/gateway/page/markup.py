"""Pieces of HTML: pictures, facts, links that download, the line of curl; whatever comes in is escaped."""

import base64
import io
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from genserve import images

SHOWN = 640  # pixels of a screen that a picture may be wide
CURL_SCALE = 4  # enlargement of pictures that are downloaded


def data_url(data: bytes, kind: str = "image/png") -> str:
    """Return bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(png: str, alt: str, width: int, shown: int = SHOWN) -> str:
    """Return a picture of few pixels, enlarged by a whole factor that fits.

    Args:
        png: in base64.
        width: of the picture, in its own pixels.
        shown: pixels of the screen that it may be wide.
    """
    wide = width * max(1, shown // width)
    return (
        f"<img class='pixels' style='width:min(100%,{wide}px)' alt='{escape(alt, quote=True)}' "
        f"src='data:image/png;base64,{escape(png, quote=True)}'>"
    )


def sheet(png: bytes, alt: str, shown: int = SHOWN) -> str:
    """Return a grid of pictures."""
    width = Image.open(io.BytesIO(png)).width
    image = picture(base64.b64encode(png).decode(), alt, width, shown)
    return f"<figure class='sheet'>{image}</figure>"


def grid(pngs: Iterable[str], scale: int = 1) -> bytes:
    """Return pictures as the server lays them out, a PNG.

    Args:
        pngs: in base64.
        scale: enlargement of every pixel.
    """
    return images.png(images.grid(images.enlarge(np.stack([pixels(png) for png in pngs]), scale)))


def pixels(png: str) -> images.Pixels:
    """Return the pixels of a PNG in base64, (H, W, C)."""
    values = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
    return values if values.ndim == 3 else values[..., None]


def empty(sentence: str) -> str:
    """Return what stands where a result will be."""
    return f"<div class='empty'><p>{escape(sentence)}</p></div>"


def status(sentence: str) -> str:
    """Return a sentence about what goes on, which screen readers read when they have time."""
    return f"<p class='status' role='status'>{escape(sentence)}</p>"


def alert(sentence: str) -> str:
    """Return a sentence about what went wrong, which screen readers read at once."""
    return f"<p class='status wrong' role='alert'>{escape(sentence)}</p>"


def side_by_side(pictures: Iterable[tuple[str, str]], width: int, shown: int) -> str:
    """Return pictures in a row.

    Args:
        pictures: PNGs in base64, each with what it is.
        width: of a picture, in its own pixels.
        shown: pixels of the screen that a picture may be wide.
    """
    figures = "".join(
        f"<figure>{picture(png, name, width, shown)}<figcaption>{escape(name)}</figcaption></figure>"
        for png, name in pictures
    )
    return f"<div class='pair'>{figures}</div>"


def bars(entries: Iterable[tuple[str, float, str]]) -> str:
    """Return bars, each with a name, a length from 0 to 1, and the text of its value."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd><span class='bar' style='--part:{part:.4f}'></span>"
        f"<span>{escape(text)}</span></dd></div>"
        for name, part, text in entries
    )
    return f"<dl class='bars'>{rows}</dl>"


def facts(entries: Mapping[str, Any]) -> str:
    """Return names and values."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in entries.items()
    )
    return f"<dl class='facts'>{rows}</dl>"


def download(data: bytes, name: str, text: str, kind: str) -> str:
    """Return a link that stores a file which the page already holds."""
    return (
        f"<a class='button' download='{escape(name, quote=True)}' href='{data_url(data, kind)}'>"
        f"{escape(text)}</a>"
    )


def links(*entries: str) -> str:
    """Return links in a row."""
    return f"<div class='links'>{''.join(entries)}</div>"


def command(text: str, title: str) -> str:
    """Return a command line that can be copied."""
    return (
        f"<div class='command'><div><span>{escape(title)}</span>"
        f"<button type='button' class='copy'>Copy</button></div>"
        f"<pre tabindex='0' aria-label='{escape(title, quote=True)}'><code>{escape(text)}</code></pre></div>"
    )


def curl(address: str, fields: Mapping[str, Any], output: str, token: bool) -> str:
    """Return the line that asks for the same.

    Args:
        address: of the model.
        output: file that it writes.
        token: the gateway wants one.
    """
    parts = ["curl", address]
    words: Iterable[str] = (f"{name}={_text(value)}" for name, value in fields.items())
    line = shlex.join([*parts, *(part for word in words for part in ("-F", word)), "-o", output])
    return f'{line} -H "Authorization: Bearer $GENSERVE_TOKEN"' if token else line


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
