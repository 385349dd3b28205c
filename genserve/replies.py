"""What a client gets: pictures in the format it asked for, with headers that say how to get them again."""

import base64
import json
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from genserve import images
from genserve.api import FRAMES_MAX, STRIP_MAX, BadRequest, DiffusionRequest
from genserve.diffusion import Query
from genserve.engine import Finished
from genserve.export import Spec

TYPES = {
    "png": "image/png",
    "filmstrip": "image/png",
    "gif": "image/gif",
    "json": "application/json",
    "npy": "application/x-npy",
    "zip": "application/zip",
}


@dataclass
class Reply:
    """One answer, ready to be sent. Headers hold numbers and our own words, never a client's text."""

    body: bytes
    content_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def refusal(error: BadRequest) -> Reply:
    """Return a client's mistake as its answer."""
    return Reply(error.body(), "application/json", 400)


def failure(message: str) -> Reply:
    """Return a mistake of ours; `message` holds nothing a client should not see."""
    body = json.dumps({"error": {"field": "", "message": message, "allowed": ""}}).encode()
    return Reply(body, "application/json", 500)


class Film:
    """Remembers a few moments of a sampler, evenly spaced: x_t in the variance-preserving picture.

    Args:
        total: how many queries the sampler will make.
        keep: how many of them to remember; the finished picture comes on top.
    """

    def __init__(self, total: int, keep: int) -> None:
        self._wanted = set(np.linspace(0, total - 1, min(keep, total)).round().astype(int).tolist())
        self._seen = 0
        self.frames: list[images.Pixels] = []  # each (B, H, W, C)

    def see(self, query: Query, x_0: Tensor) -> None:
        """Be shown one query; see `diffusion.watched`."""
        if self._seen in self._wanted:
            scale = (1 + query.sigma.view(-1, 1, 1, 1) ** 2).sqrt()
            self.frames.append(images.to_pixels(query.x / scale))
        self._seen += 1


def film_for(request: DiffusionRequest) -> Film:
    """Return what watches the sampler; it keeps nothing where the format shows the finished images only."""
    keep = {"filmstrip": STRIP_MAX - 1, "gif": FRAMES_MAX - 1}.get(request.format, 0)
    return Film(request.evaluations, keep)


def answer(request: DiffusionRequest, spec: Spec, ended: Finished, film: Film) -> Reply:
    """Return the answer to a resolved request whose sampler ended well.

    Raises:
        ValueError: the images are not finite.
    """
    assert ended.x_0 is not None
    pixels = images.enlarge(images.to_pixels(ended.x_0), request.scale)
    moments = [images.enlarge(frame, request.scale) for frame in film.frames]
    match request.format:
        case "png":
            body = images.png(images.grid(pixels, request.columns))
        case "filmstrip":
            strip = np.stack([*moments, pixels], axis=1)  # (B, levels, H, W, C)
            body = images.png(images.grid(strip.reshape(-1, *pixels.shape[1:]), strip.shape[1]))
        case "gif":
            body = images.gif([images.grid(frame, request.columns) for frame in [*moments, pixels]])
        case "npy":
            body = images.npy(pixels)
        case "zip":
            body = images.zipped(
                {f"{k + 1:05}.png": images.png(p) for k, p in zip(request.indices, pixels, strict=True)}
            )
        case "json":
            body = _listing(request, spec, pixels, ended.nfe)
    headers = {
        "X-Seed": str(request.seed),
        "X-Steps": str(request.steps),
        "X-Sampler": str(request.sampler),
        "X-Eta": str(request.eta),
        "X-NFE": str(ended.nfe),
    }
    return Reply(body, TYPES[request.format], headers=headers)


def _listing(request: DiffusionRequest, spec: Spec, pixels: images.Pixels, nfe: int) -> bytes:
    labels = request.label if isinstance(request.label, list) else [None] * len(pixels)
    rows = [
        {
            "index": index,
            "seed": request.seed,
            "label": label,
            "png": base64.b64encode(images.png(p)).decode(),
        }
        for index, label, p in zip(request.indices, labels, pixels, strict=True)
    ]
    value = {"images": rows, "seed": request.seed, "nfe": nfe, "settings": request.settings(spec)}
    return json.dumps(value).encode()
