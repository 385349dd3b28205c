"""Parts of the page that need no browser: words for refusals, HTML, curves, maps, merged streams."""

import asyncio
import html
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
import pytest

from genserve.gateway.page import controls, markup
from genserve.gateway.page.asking import Refused, merged
from genserve.gateway.page.catalogue import Model, missing, request_of
from genserve.gateway.page.curve import curve, ticks
from genserve.gateway.page.energy import verdict
from genserve.gateway.page.film import Frame, Reel, film
from genserve.gateway.page.pad import fitted, sent
from genserve.gateway.page.words import plane_of, word_map
from genserve.gateway.page.writing import page_of
from genserve.sampling.noise import SEED_MAX
from genserve.serving.fields import problem

EVIL = "<script>alert('1')</script>"
DIGITS = Model("digits", {
    "family": "diffusion", "shape": [1, 28, 28], "classes": list("0123456789"),
    "sampler": "ddim", "steps": 8, "eta": 1.0, "guidance": 1.0,
})  # fmt: skip


def test_a_refusal_is_a_sentence_and_names_its_field() -> None:
    refusal = Refused.of(problem("steps", "out of range", "1 to 1000"), 400)
    assert (refusal.sentence, refusal.field) == ("Out of range (allowed: 1 to 1000).", "steps")
    host = Refused.of(b'{"code": 503, "type": "Busy", "message": "No worker is ready."}', 503)
    assert (host.sentence, host.field) == ("No worker is ready.", "")
    assert "status 502" in Refused.of(b"<html>", 502).sentence


@pytest.mark.parametrize("family", ["gan", "text", "energy"])
def test_what_a_server_lacks_is_a_sentence_with_the_commands(family: str) -> None:
    assert re.search(r"\./scripts/build_archives \w+ .* \./scripts/models register \w+\.mar", missing(family))


def test_ranges_are_those_of_the_requests() -> None:
    kind = request_of("diffusion")
    assert controls.bounds(kind, "steps") == (1, 1000)
    assert controls.bounds(request_of("gan"), "truncation") == (0, 10)
    assert controls.seed_of(kind, f" {SEED_MAX} ") == SEED_MAX
    assert controls.seed_of(kind, "") is None
    for text in ("-1", "x", str(SEED_MAX + 1)):
        with pytest.raises(Refused) as refused:
            controls.seed_of(kind, text)
        assert refused.value.field == "seed"


def test_what_a_model_does_by_itself_is_left_out_of_a_request() -> None:
    assert controls.given(DIGITS, sampler="", steps=8, eta=1.0, guidance=1, seed=None) == {}
    assert controls.given(DIGITS, sampler="heun", steps=9) == {"sampler": "heun", "steps": 9}
    assert controls.label_fields(controls.EACH, ["a", "b"], 3) == {"label": ["a", "b", "a"]}
    assert controls.label_fields(controls.ANY, ["a", "b"], 3) == {"num_samples": 3}


def test_whatever_comes_in_is_escaped() -> None:
    reel = Reel(EVIL, 28, [Frame([(EVIL, "x")], EVIL)])
    parts = [
        markup.status(EVIL), markup.alert(EVIL), markup.facts({EVIL: EVIL}), markup.bars([(EVIL, 1, EVIL)]),
        markup.command(EVIL, EVIL), markup.picture(EVIL, EVIL, 28), markup.empty(EVIL),
        markup.download(b"", EVIL, EVIL, "image/png"), film([reel], 28, EVIL),
        page_of(EVIL, [{"text": EVIL, "log_p": -1.0}]), word_map([EVIL], [EVIL], np.zeros((1, 2))),
    ]  # fmt: skip
    for part in parts:
        assert "<script" not in part
        assert "alert('1')" not in part  # it would end an attribute
        assert EVIL in html.unescape(part)


def test_the_line_of_curl_is_safe_in_a_shell() -> None:
    line = markup.curl(
        "http://x/predictions/a", {"label": ["0", "1"], "eta": 0.5, "prompt": "it's"}, "o", True
    )
    assert line == (
        """curl http://x/predictions/a -F label=0,1 -F eta=0.5 -F 'prompt=it'"'"'s' -o o """
        '-H "Authorization: Bearer $GENSERVE_TOKEN"'
    )


def test_ticks_are_round_and_between_the_ends() -> None:
    assert ticks(0.0, 100.0) == [0, 25, 50, 75, 100]
    assert ticks(0.31, 0.62) == pytest.approx([0.4, 0.5, 0.6])
    assert curve([], "step", "Loss") == ""
    assert "Loss: 2 at step 1, 1 at step 3" in curve([(1, 2), (3, 1)], "step", "Loss")
    assert "<polyline" in curve([(1, 2)], "step", "Loss")  # one point, and all alike
    assert "<polyline" in curve([(1, 0.0), (2, 0.0)], "step", "Loss")


def test_a_plane_keeps_the_distances_of_points_that_lie_in_one() -> None:
    flat = np.random.default_rng(0).normal(size=(6, 2)) @ np.array([[1.0, 2, 0, 1], [0, 1, 3, -1]])
    points = plane_of(flat)
    assert points.min(0) == pytest.approx([0, 0])
    assert points.max(0) == pytest.approx([1, 1])
    spread = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    assert spread[2] == pytest.approx(0, abs=1e-9)
    assert plane_of(np.ones((1, 4))).tolist() == [[0, 0]]


def test_labels_of_a_map_do_not_overlap() -> None:
    names = [f"word{k}" for k in range(12)]
    picture = word_map(names, names[:2], np.full((12, 2), 0.5))
    assert picture.count("<circle") == 12
    places = re.findall(r"<text x='(\d+)' y='(\d+)'", picture)
    assert 2 <= len(places) == len(set(places)) < 12


def test_an_energy_is_compared_with_those_of_training_images() -> None:
    assert verdict({"energy": 30.0, "rank": 0.9}) == "Energy 30.00: 90% of the training images have less."
    assert "more than any training image" in verdict({"energy": 99.0, "rank": 1.0})
    assert "no energies" in verdict({"energy": 1.0, "rank": None})


@pytest.mark.parametrize("value", ["", "{", "[]", '{"picture": "x", "mask": ""}', None])
def test_a_pad_that_holds_no_picture_is_refused(value: str) -> None:
    with pytest.raises(Refused):
        sent(DIGITS, value)
    with pytest.raises(Refused):
        sent(DIGITS, fitted(DIGITS))


def test_merged_streams_end_together_and_closing_them_closes_each() -> None:
    closed = []

    async def counting(name: str, n: int) -> AsyncGenerator[int, None]:
        try:
            for k in range(n):
                await asyncio.sleep(0)
                yield k
            if name == "bad":
                raise Refused("No.")
        finally:
            closed.append(name)

    async def use() -> None:
        items = [item async for item in merged({name: counting(name, 3) for name in ("a", "b")})]
        assert sorted(items) == [(name, k) for name in ("a", "b") for k in range(3)]
        last = [item async for item in merged({"bad": counting("bad", 1)})][-1]
        assert isinstance(last[1], Refused)
        closed.clear()
        async with aclosing(merged({name: counting(name, 10**9) for name in ("a", "b")})) as endless:
            await anext(endless)
        assert sorted(closed) == ["a", "b"]

    asyncio.run(use())
