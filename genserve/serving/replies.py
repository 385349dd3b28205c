"""What a client gets: pictures in the format it asked for, with headers that say how to get them again."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from genserve import images
from genserve.serving.fields import BadRequest, problem
from genserve.serving.film import Film
from genserve.serving.orders import Order
from genserve.serving.requests.base import Notes

TYPES = {
    "png": "image/png",
    "filmstrip": "image/png",
    "gif": "image/gif",
    "json": "application/json",
    "npy": "application/x-npy",
    "zip": "application/zip",
}
HEADERS = ("sampler", "steps", "schedule", "eta", "strength", "resample", "seed_to")  # facts that stand there


@dataclass
class Reply:
    """One answer, ready to be sent. Headers hold numbers and our own words, never a client's text."""

    body: bytes
    content_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ends_stream: bool = False  # the client has got the beginning already


def refusal(error: BadRequest) -> Reply:
    """Return a client's mistake as its answer."""
    return Reply(error.body(), "application/json", error.status)


def failure() -> Reply:
    """Return a mistake of ours; a client learns no more of it."""
    return _error(500, "sampling failed; the server's log says why", "")


def too_late(deadline_s: float) -> Reply:
    """Return the answer to a request that was not done in time."""
    return _error(504, f"not done within {deadline_s:g} s", "fewer steps or images, or a quieter time")


def _error(status: int, message: str, allowed: str) -> Reply:
    return Reply(problem("", message, allowed), "application/json", status)


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
        case "png":
            body = images.png(images.grid(pixels, order.columns))
        case "filmstrip":
            strip = np.stack([*frames, pixels], axis=1)  # (B, levels, H, W, C)
            body = images.png(images.grid(strip.reshape(-1, *pixels.shape[1:]), strip.shape[1]))
        case "gif":
            body = images.gif([images.grid(frame, order.columns) for frame in [*frames, pixels]])
        case "npy":
            body = images.npy(pixels)
        case "zip":
            body = images.zipped(
                {f"{k + 1:05}.png": images.png(p) for k, p in zip(order.indices, pixels, strict=True)}
            )
        case "json":
            body = json.dumps(listing(order, facts, pixels, nfe, notes)).encode()
    return Reply(body, TYPES[order.format], headers=headers(order.seed, facts, nfe, notes))


def headers(seed: int | None, facts: dict[str, Any], nfe: int, notes: Notes) -> dict[str, str]:
    """Return the headers that say how to get the same images again."""
    values: dict[str, Any] = {"X-Seed": seed, "X-NFE": nfe}
    values |= {_header(name): facts.get(name) for name in HEADERS}
    values |= {_header(name): ",".join(map(str, row)) for name, row in notes.items()}
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
