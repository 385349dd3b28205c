"""What a client gets: pictures in the format it asked for, with headers that say how to get them again."""

import base64
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from genserve import images
from genserve.sampling.engine import Finished
from genserve.sampling.samplers import Query
from genserve.serving.fields import BadRequest, problem
from genserve.serving.requests.pictures import FRAMES_MAX, STRIP_MAX, PictureRequest

TYPES = {
    "png": "image/png",
    "filmstrip": "image/png",
    "gif": "image/gif",
    "json": "application/json",
    "npy": "application/x-npy",
    "zip": "application/zip",
}
BOUNDARY = "frame"  # between the parts of a stream


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


@dataclass(frozen=True)
class Frame:
    """One look of a sampler."""

    step: int  # from 1
    nfe: int  # network evaluations of each image until now
    sigma: float
    pixels: images.Pixels  # (B, H, W, C)


class Film:
    """Remembers what a sampler sees at a few of its noise levels, for the end or for a client that watches.

    Heun looks at each level twice, at a trial point and then where it really goes: the last look counts. A
    sampler that walks at one level gets somewhere with every look.

    Args:
        levels: noise levels above 0 that the sampler will visit, or looks of one that walks.
        keep: how many of them to remember; the finished picture comes on top.
        preview: "x_t", in the variance-preserving picture, or "x_0", the current guess.
        cost: network evaluations of an image a look.
        walks: all looks are at one level, and x_t is shown as it is.
    """

    def __init__(
        self, levels: int, keep: int, preview: str = "x_t", cost: int = 1, walks: bool = False
    ) -> None:
        # the guess of the last level is the finished picture
        last = levels - 1 if preview == "x_t" else levels - 2
        self._wanted = set(np.linspace(0, last, min(keep, last + 1)).round().astype(int).tolist())
        self._preview, self._cost, self._walks = preview, cost, walks
        self._level, self._sigma, self._looks = -1, math.inf, 0
        self._kept: dict[int, Frame] = {}

    def see(self, query: Query, x_0: Tensor) -> None:
        """Be shown one query; see `diffusion.watched`."""
        sigma = query.sigma[0].item()
        self._looks += 1
        if sigma < self._sigma or self._walks:
            self._level, self._sigma = self._level + 1, sigma
        if self._level in self._wanted:
            x_t = query.x if self._walks else query.x / math.sqrt(1 + sigma**2)
            shown = x_t if self._preview == "x_t" else x_0
            pixels = images.to_pixels(shown)
            self._kept[self._level] = Frame(self._level + 1, self._looks * self._cost, sigma, pixels)

    @property
    def frames(self) -> list[Frame]:
        """From noise on."""
        return list(self._kept.values())

    @property
    def settled(self) -> list[Frame]:
        """The frames that no later look replaces; asked while another thread lets the sampler look."""
        level = self._level
        return [frame for frame in self.frames if frame.step <= level]


def film_for(request: PictureRequest) -> Film | None:
    """Return what watches the sampler; none where only finished images are shown."""
    cost, levels, walks = request.cost, request.steps or 1, request.schedule is None
    if request.stream:
        return Film(levels, (request.frames or 1) - 1, request.preview or "x_0", cost, walks)
    keep = {"filmstrip": STRIP_MAX - 1, "gif": FRAMES_MAX - 1}.get(request.format)
    return Film(levels, keep, walks=walks) if keep else None


Notes = dict[str, list[Any]]  # what is said of each image beside its pixels, by name: numbers, rounded


def answer(
    request: PictureRequest,
    settings: dict[str, Any],
    ended: Finished,
    film: Film | None = None,
    notes: Notes | None = None,
) -> Reply:
    """Return the answer to a resolved request whose sampler ended well.

    Args:
        settings: what its images depend on, beside seed, index and label.
        film: what watched the sampler.
        notes: what goes into JSON and headers.

    Raises:
        ValueError: the images are not finite.
    """
    assert ended.x_0 is not None
    notes = notes or {}
    pixels = images.enlarge(images.to_pixels(ended.x_0), request.scale)
    moments = [images.enlarge(frame.pixels, request.scale) for frame in (film.frames if film else [])]
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
            body = json.dumps(_listing(request, settings, pixels, ended.nfe, notes)).encode()
    return Reply(body, TYPES[request.format], headers=_headers(request.seed, settings, ended.nfe, notes))


def _headers(seed: int | None, settings: dict[str, Any], nfe: int, notes: Notes) -> dict[str, str]:
    headers: dict[str, Any] = {"X-Seed": seed, "X-NFE": nfe}
    headers |= {f"X-{name.title()}": settings[name] for name in ("sampler", "steps", "schedule", "eta")}
    headers |= {
        f"X-{name.title().replace('_', '-')}": ",".join(map(str, values)) for name, values in notes.items()
    }
    return {name: str(value) for name, value in headers.items() if value is not None}


def _listing(
    request: PictureRequest, settings: dict[str, Any], pixels: images.Pixels, nfe: int, notes: Notes
) -> dict[str, Any]:
    labels = request.label if isinstance(request.label, list) else [None] * len(pixels)
    rows = [
        {
            "index": index,
            "seed": request.seed,
            "label": label,
            **{name: values[k] for name, values in notes.items()},
            **({"png": base64.b64encode(images.png(p)).decode()} if request.pictured else {}),
        }
        for k, (index, label, p) in enumerate(zip(request.indices, labels, pixels, strict=True))
    ]
    return {"images": rows, "seed": request.seed, "nfe": nfe, "settings": settings}


class Stream:
    """The answer to a client that watches: frames while they appear, and the finished picture last.

    As parts of a multipart/x-mixed-replace body, which a browser plays as one changing picture, or as lines
    of JSON. A browser shows a part when it has read the boundary behind it, so each part brings that along.

    Args:
        request: resolved, with `stream`.
        settings: as for `answer`.
        film: what watches its sampler.
    """

    def __init__(self, request: PictureRequest, settings: dict[str, Any], film: Film) -> None:
        self._request, self._settings, self._film = request, settings, film
        self._sent = 0
        self.begun = False  # whether the client has got anything
        self._lines = request.stream == "jsonl"
        self.content_type = (
            "application/jsonl" if self._lines else f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        )
        self.headers = _headers(request.seed, settings, request.evaluations, {})

    def more(self, frames: list[Frame] | None = None) -> bytes:
        """Return what is new: by itself, the settled frames that were not sent yet."""
        fresh = (self._film.settled if frames is None else frames)[self._sent :]
        self._sent += len(fresh)
        opening = b"" if self.begun or self._lines else f"--{BOUNDARY}\r\n".encode()
        self.begun = True
        return opening + b"".join(self._part(frame) for frame in fresh)

    def end(self, ended: Finished, reply: Reply, notes: Notes) -> Reply:
        """Return the last of it: the frames that are left and what a plain request would have got."""
        if ended.x_0 is None or reply.status != 200:
            return self.broken(reply)
        begun, rest = self.begun, self.more(self._film.frames)
        if self._lines:
            pixels = images.enlarge(images.to_pixels(ended.x_0), self._request.scale)
            listing = _listing(self._request, self._settings, pixels, ended.nfe, notes)
            rest += _line(self._request.steps or 0, ended.nfe, 0.0, reply.body, listing)
        else:
            rest += _part(reply.body, ended.nfe, 0.0, last=True)
        return Reply(rest, self.content_type, headers=reply.headers, ends_stream=begun)

    def broken(self, reply: Reply) -> Reply:
        """Return the answer to a request that failed: itself, or the end of what was begun as a success."""
        if not self.begun:
            return reply
        body = reply.body + b"\n" if self._lines else f"--{BOUNDARY}--\r\n".encode()
        return Reply(body, self.content_type, ends_stream=True)

    def _part(self, frame: Frame) -> bytes:
        pixels = images.enlarge(frame.pixels, self._request.scale)
        png = images.png(images.grid(pixels, self._request.columns))
        if self._lines:
            return _line(frame.step, frame.nfe, frame.sigma, png, {})
        return _part(png, frame.nfe, frame.sigma)


def _line(step: int, nfe: int, sigma: float, png: bytes, more: dict[str, Any]) -> bytes:
    preview = base64.b64encode(png).decode()
    return json.dumps({"step": step, "nfe": nfe, "sigma": sigma, "preview": preview, **more}).encode() + b"\n"


def _part(png: bytes, nfe: int, sigma: float, last: bool = False) -> bytes:
    head = f"Content-Type: image/png\r\nContent-Length: {len(png)}\r\nX-NFE: {nfe}\r\nX-Sigma: {sigma:.6g}"
    return f"{head}\r\n\r\n".encode() + png + f"\r\n--{BOUNDARY}{'--' if last else ''}\r\n".encode()
