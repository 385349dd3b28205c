"""A stream, part by part: what a browser and a reader of lines are sent, and how it ends."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from genserve.images import png, to_pixels
from genserve.sampling.engine import Finished
from genserve.sampling.samplers import Query
from genserve.serving.film import Film
from genserve.serving.orders import Order
from genserve.serving.replies import Reply, failure
from genserve.serving.streams import Stream

FACTS = {"sampler": "ddim", "steps": 3, "schedule": "karras", "eta": 0.0}
X_0 = torch.zeros(1, 1, 4, 4)
PICTURE = Reply(png(to_pixels(X_0)[0]), "image/png", headers={"X-Seed": "1"})


def look(film: Film, sigma: float) -> None:
    film.see(Query(X_0, torch.tensor([sigma]), torch.tensor([0])), X_0 + sigma / 10)


def started(kind: object) -> tuple[Stream, Film]:
    film = Film(levels=3, keep=3, preview="x_0")
    order = Order(task="sample", n=1, seed=1, stream=kind, frames=3, nfe=3)  # type: ignore[arg-type]
    return Stream(order, 3, FACTS, film, {}), film


def ended(error: Exception | None = None) -> Finished:
    return Finished("a", None if error else X_0, error, evaluated=3, ticks=3, waited=0.0)


def pictures(body: bytes) -> list[np.ndarray]:
    """Return the pictures of a multipart body, as long as their parts say."""
    at, result = body.find(b"Content-Length: "), []
    while at >= 0:
        size = int(body[at + 16 : body.index(b"\r\n", at)])
        start = body.index(b"\r\n\r\n", at) + 4
        result.append(np.asarray(Image.open(io.BytesIO(body[start : start + size]))))
        at = body.find(b"Content-Length: ", start + size)
    return result


def test_a_proxy_is_told_to_pass_frames_on_at_once() -> None:
    assert (
        started("jsonl")[0].headers["X-Accel-Buffering"] == "no"
    )  # nginx gathers a stream otherwise, to its end


def test_a_browser_gets_a_part_with_the_boundary_behind_it() -> None:
    stream, film = started(True)
    assert stream.content_type == "multipart/x-mixed-replace; boundary=frame"
    assert stream.more() == b"--frame\r\n"  # nothing is settled yet
    look(film, 8.0)
    look(film, 4.0)
    part = stream.more()
    assert part.endswith(b"\r\n--frame\r\n")
    assert [picture.mean() for picture in pictures(part)] == [pytest.approx(229.5, abs=1)]  # 0.8 of [-1, 1]
    assert stream.more() == b""
    look(film, 2.0)
    reply = stream.end(ended(), PICTURE)
    assert reply.ends_stream
    assert reply.body.endswith(b"--frame--\r\n")
    assert pictures(reply.body)[-1].mean() == pytest.approx(128, abs=1)


def test_lines_are_json_and_the_last_one_lists_the_images() -> None:
    stream, film = started("jsonl")
    look(film, 8.0)
    look(film, 4.0)
    first = json.loads(stream.more())
    assert (first["step"], first["nfe"], first["sigma"]) == (1, 1, 8.0)
    assert base64.b64decode(first["preview"]).startswith(b"\x89PNG")
    *_, last = map(json.loads, stream.end(ended(), PICTURE).body.splitlines())
    assert (last["step"], last["nfe"], last["sigma"], last["images"][0]["seed"]) == (3, 3, 0.0, 1)
    assert base64.b64decode(last["preview"]) == PICTURE.body


def test_a_stream_that_nothing_was_sent_of_ends_as_a_plain_answer() -> None:
    stream, _ = started(True)
    assert not stream.end(ended(), PICTURE).ends_stream
    stream, _ = started(True)
    assert stream.end(ended(RuntimeError()), failure()).status == 500


def test_a_failure_after_the_beginning_ends_the_stream() -> None:
    for kind, body in ((True, b"--frame--\r\n"), ("jsonl", failure().body + b"\n")):
        stream, _ = started(kind)
        stream.more()
        reply = stream.end(ended(RuntimeError()), failure())
        assert (reply.body, reply.ends_stream, reply.status) == (body, True, 200)
