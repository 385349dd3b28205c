"""The answer to a client that watches: frames while they appear, and the finished picture last."""

import base64
import json
from typing import Any

from genserve import images
from genserve.sampling.engine import Finished
from genserve.serving.film import Film, Frame
from genserve.serving.jobs.base import Streaming
from genserve.serving.orders import Notes, Order
from genserve.serving.picture_replies import headers, listing
from genserve.serving.replies import Reply

BOUNDARY = "frame"  # between the parts of a stream


class Stream(Streaming):
    """Build the answer to a client that watches: frames while they appear, the finished picture last.

    As parts of a multipart/x-mixed-replace body, which a browser plays as one changing picture, or as lines
    of JSON. A browser shows a part when it has read the boundary behind it, so each part brings that along.

    Args:
        order: with `stream`.
        steps: that its sampler runs.
        facts: as for `answer`.
        film: what watches its sampler.
        notes: as for `answer`.
    """

    def __init__(self, order: Order, steps: int, facts: dict[str, Any], film: Film, notes: Notes) -> None:
        self._order, self._steps, self._facts, self._film = order, steps, facts, film
        self._notes = notes
        self._sent = 0
        self.begun = False  # whether the client has got anything
        self._lines = order.stream == "jsonl"
        self.content_type = (
            "application/jsonl" if self._lines else f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        )
        # nginx holds answers back until its buffers are full, unless it is told not to
        self.headers = headers(order.seed, facts, order.nfe, {}) | {"X-Accel-Buffering": "no"}

    def more(self) -> bytes:
        """Return the settled frames that were not sent yet."""
        return self._parts(self._film.settled)

    def _parts(self, frames: list[Frame]) -> bytes:
        fresh = frames[self._sent :]
        self._sent += len(fresh)
        opening = b"" if self.begun or self._lines else f"--{BOUNDARY}\r\n".encode()
        self.begun = True
        return opening + b"".join(self._part(frame) for frame in fresh)

    def end(self, ended: Finished, reply: Reply) -> Reply:
        """Return the end of the stream: the frames that are left and what a plain request would have got."""
        if reply.status != 200:
            return self.broken(reply)
        nfe = ended.evaluated // self._order.n
        begun, rest = self.begun, self._parts(self._film.frames)
        if self._lines:
            pixels = images.enlarge(images.to_pixels(ended.result), self._order.scale)
            more = listing(self._order, self._facts, pixels, nfe, self._notes)
            more["server_timing"] = reply.headers.get("Server-Timing", "")  # its own headers are long sent
            rest += _line(self._steps, nfe, 0.0, reply.body, more)
        else:
            rest += _part(reply.body, nfe, 0.0, last=True)
        return Reply(rest, self.content_type, headers=reply.headers, ends_stream=begun)

    def broken(self, reply: Reply) -> Reply:
        """Return the answer to a request that failed: itself, or the end of what was begun as a success."""
        if not self.begun:
            return reply
        body = reply.body + b"\n" if self._lines else f"--{BOUNDARY}--\r\n".encode()
        return Reply(body, self.content_type, ends_stream=True)

    def _part(self, frame: Frame) -> bytes:
        pixels = images.enlarge(frame.pixels, self._order.scale)
        png = images.png(images.grid(pixels, self._order.columns))
        if self._lines:
            return _line(frame.step, frame.nfe, frame.sigma, png, {})
        return _part(png, frame.nfe, frame.sigma)


def _line(step: int, nfe: int, sigma: float, png: bytes, more: dict[str, Any]) -> bytes:
    preview = base64.b64encode(png).decode()
    return json.dumps({"step": step, "nfe": nfe, "sigma": sigma, "preview": preview, **more}).encode() + b"\n"


def _part(png: bytes, nfe: int, sigma: float, last: bool = False) -> bytes:
    head = f"Content-Type: image/png\r\nContent-Length: {len(png)}\r\nX-NFE: {nfe}\r\nX-Sigma: {sigma:.6g}"
    return f"{head}\r\n\r\n".encode() + png + f"\r\n--{BOUNDARY}{'--' if last else ''}\r\n".encode()
