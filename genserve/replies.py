"""What a client gets: pictures in the format it asked for, with headers that say how to get them again."""

import base64
import json
import math
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


def failure() -> Reply:
    """Return a mistake of ours; a client learns no more of it."""
    error = {"field": "", "message": "sampling failed; the server's log says why", "allowed": ""}
    return Reply(json.dumps({"error": error}).encode(), "application/json", 500)


class Film:
    """Remembers x_t at a few of a sampler's noise levels, in the variance-preserving picture.

    Heun looks at each level twice, at a trial point and then where it really goes: the last look counts.

    Args:
        levels: noise levels above 0 that the sampler will visit.
        keep: how many of them to remember; the finished picture comes on top.
    """

    def __init__(self, levels: int, keep: int) -> None:
        self._wanted = set(np.linspace(0, levels - 1, min(keep, levels)).round().astype(int).tolist())
        self._level, self._sigma = -1, math.inf
        self._kept: dict[int, images.Pixels] = {}

    def see(self, query: Query, x_0: Tensor) -> None:
        """Be shown one query; see `diffusion.watched`."""
        sigma = query.sigma[0].item()
        if sigma < self._sigma:
            self._level, self._sigma = self._level + 1, sigma
        if self._level in self._wanted:
            self._kept[self._level] = images.to_pixels(query.x / math.sqrt(1 + sigma**2))

    @property
    def frames(self) -> list[images.Pixels]:
        """From noise on, each (B, H, W, C)."""
        return list(self._kept.values())


def film_for(request: DiffusionRequest) -> Film:
    """Return what watches the sampler; it keeps nothing where only finished images are shown."""
    keep = {"filmstrip": STRIP_MAX - 1, "gif": FRAMES_MAX - 1}.get(request.format, 0)
    return Film(request.steps or 1, keep)


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
        "X-NFE": str(ended.nfe),
    }
    if request.eta is not None:
        headers["X-Eta"] = str(request.eta)
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
