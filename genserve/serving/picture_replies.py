"""Pictures in the format that a client asks for, with headers that say how to get them again."""

import base64
import json
from typing import Any

import numpy as np
from torch import Tensor

from genserve import images
from genserve.serving.film import Film
from genserve.serving.orders import Notes, Order
from genserve.serving.replies import JSON, Reply

TYPES = {
    "png": "image/png",
    "filmstrip": "image/png",
    "gif": "image/gif",
    "json": JSON,
    "npy": "application/x-npy",
    "zip": "application/zip",
}
# facts that stand there
HEADERS = (
    "sampler", "steps", "schedule", "eta", "strength", "resample", "seed_to", "truncation", "temperature"
)  # fmt: skip


def answer(
    order: Order, facts: dict[str, Any], x_0: Tensor, nfe: int, film: Film | None, notes: Notes
) -> Reply:
    """Return the answer to an order whose sampler ended well.

    Args:
        facts: what its images depend on, beside seed, index and label.
        x_0: (N, C, H, W) in [-1, 1], what the sampler returned.
        nfe: network evaluations of each image.
        film: what watched the sampler.
        notes: what goes into JSON and headers.

    Raises:
        ValueError: the images are not finite.
    """
    pixels = images.enlarge(images.to_pixels(x_0), order.scale)
    frames = [images.enlarge(frame.pixels, order.scale) for frame in (film.frames if film else [])]
    match order.format:
        case "filmstrip":
            strip = np.stack([*frames, pixels], axis=1)  # (B, levels, H, W, C)
            body = images.png(images.grid(strip.reshape(-1, *pixels.shape[1:]), strip.shape[1]))
        case "gif":
            body = images.gif([images.grid(frame, order.columns) for frame in [*frames, pixels]])
        case "json":
            body = json.dumps(listing(order, facts, pixels, nfe, notes)).encode()
        case _:
            body = file(order.format, pixels, order.columns, order.first_index)
    return Reply(body, TYPES[order.format], headers=headers(order.seed, facts, nfe, notes))


def file(form: str, pixels: images.Pixels, columns: int | None = None, first_index: int = 0) -> bytes:
    """Return pictures as one file.

    Args:
        form: png, npy or zip.
        pixels: (N, H, W, C).
        columns: of the grid of a png.
        first_index: number of the first picture, which the names in a zip begin after.

    Raises:
        ValueError: there is no such file.
    """
    match form:
        case "png":
            return images.png(images.grid(pixels, columns))
        case "npy":
            return images.npy(pixels)
        case "zip":
            return images.zipped(
                {f"{k:05}.png": images.png(p) for k, p in enumerate(pixels, first_index + 1)}
            )
    raise ValueError(f"no file of pictures is a {form}")


def headers(seed: int | None, facts: dict[str, Any], nfe: int, notes: Notes) -> dict[str, str]:
    """Return the headers that say how to get the same images again."""
    values: dict[str, Any] = {"X-Seed": seed, "X-NFE": nfe}
    values |= {_header(name): facts.get(name) for name in HEADERS}
    plain = {name: row for name, row in notes.items() if not isinstance(row[0], list)}
    values |= {_header(name): ",".join(map(str, row)) for name, row in plain.items()}
    return {name: str(value) for name, value in values.items() if value is not None}


def _header(name: str) -> str:
    return f"X-{name.title().replace('_', '-')}"


def listing(
    order: Order, facts: dict[str, Any], pixels: images.Pixels, nfe: int, notes: Notes
) -> dict[str, Any]:
    """Return the JSON answer: an entry per image, and what all have in common."""
    rows = [
        {
            "index": index if order.seed_to is None else order.first_index,
            "seed": order.seed,
            **({} if order.seed_to is None else {"seed_to": order.seed_to}),
            "label": label,
            **{name: values[k] for name, values in notes.items()},
            **({"png": base64.b64encode(images.png(p)).decode()} if order.pictured else {}),
        }
        for k, (index, label, p) in enumerate(
            zip(order.indices, order.label or [None] * order.n, pixels, strict=True)
        )
    ]
    return {"images": rows, "seed": order.seed, "nfe": nfe, "settings": facts}
