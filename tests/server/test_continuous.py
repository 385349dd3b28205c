"""A continuous archive on a real TorchServe: streams, hang-ups, one worker, short and long side by side."""

import base64
import io
import itertools
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from grpc_client import predict
from PIL import Image
from real_server import Server, wait_until

from genserve.commands.page_pictures import CHROMIUM

pytestmark = pytest.mark.server
URL = "/predictions/diffusion"
LONG: dict[str, Any] = {"num_samples": 16, "steps": 1000, "seed": 1}


def parts(body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Read a multipart/x-mixed-replace body as strictly as it was promised."""
    opening, *middle, closing = body.split(b"--frame")
    assert (opening, closing) == (b"", b"--\r\n")
    parts = []
    for part in middle:
        head, content = part.removeprefix(b"\r\n").removesuffix(b"\r\n").split(b"\r\n\r\n", 1)
        headers = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n"))
        assert int(headers["Content-Length"]) == len(content)
        parts.append((headers, content))
    return parts


def metric(server: Server, name: str, model: str = "diffusion") -> float | None:
    """Return a counter of a model, None until its worker has reported it."""
    text = httpx.get(f"{server.metrics}/metrics").text
    value = re.search(rf'^{name}{{ModelName="{model}",ModelVersion="1.0",.*?}} (\S+)$', text, re.MULTILINE)
    return None if value is None else float(value[1])


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
@pytest.mark.parametrize("preview", ["x_0", "x_t"])
def test_a_stream_of_frames_ends_with_the_finished_picture(
    server: Server, sampler: str, preview: str
) -> None:
    fields = {"num_samples": 4, "seed": 2, "steps": 40, "sampler": sampler}
    with server.client() as client:
        plain = client.post(URL, json=fields)
        streamed = client.post(URL, json={**fields, "stream": True, "preview": preview, "frames": 6})
    assert streamed.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
    assert streamed.headers["X-Seed"] == "2"
    frames = parts(streamed.content)
    assert len(frames) == 6
    assert frames[-1][1] == plain.content
    assert len({content for _, content in frames}) == 6
    assert [float(h["X-Sigma"]) for h, _ in frames] == sorted(
        (float(h["X-Sigma"]) for h, _ in frames), reverse=True
    )
    assert int(frames[-1][0]["X-NFE"]) == int(plain.headers["X-NFE"]) == int(streamed.headers["X-NFE"])
    first, last = (np.asarray(Image.open(io.BytesIO(frames[k][1]))).astype(float) for k in (0, -1))
    noisy = [abs(np.diff(picture[:28, :28])).mean() for picture in (first, last)]
    assert noisy[0] > 2 * noisy[1] if preview == "x_t" else noisy[0] < noisy[1]  # noise, or a blur


def test_a_stream_of_json_lines(server: Server) -> None:
    fields = {"num_samples": 2, "seed": 3, "steps": 30, "label": 4, "guidance": 2}
    with server.client() as client:
        listing = client.post(URL, json={**fields, "format": "json"}).json()
        plain = client.post(URL, json=fields).content
        with client.stream("POST", URL, json={**fields, "stream": "jsonl", "frames": 5}) as answer:
            assert answer.headers["content-type"] == "application/jsonl"
            lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert len(lines) == 5
    assert all(Image.open(io.BytesIO(base64.b64decode(line["preview"]))).size == (58, 28) for line in lines)
    assert [line["nfe"] for line in lines] == [2 * line["step"] for line in lines]  # guidance asks twice
    assert lines[-1]["sigma"] == 0
    assert base64.b64decode(lines[-1]["preview"]) == plain
    assert {key: lines[-1][key] for key in listing} == listing


def test_frames_arrive_while_the_sampler_runs(server: Server) -> None:
    began = time.monotonic()
    with server.client() as client, client.stream("POST", URL, json={**LONG, "stream": "jsonl"}) as answer:
        arrived = [time.monotonic() - began for _ in answer.iter_lines()]
    assert arrived[0] < arrived[-1] / 3
    assert max(b - a for a, b in itertools.pairwise(arrived)) < arrived[-1] / 2


def test_who_hangs_up_frees_its_place(server: Server) -> None:
    cancelled = metric(server, "genserve_cancelled_total")
    with server.client() as client:
        with client.stream("POST", URL, json={**LONG, "num_samples": 16, "stream": True}) as answer:
            next(answer.iter_raw())
        # the next one has the machine for itself
        began = time.monotonic()
        assert client.post(URL, json={"steps": 2}).status_code == 200
        assert time.monotonic() - began < 2
    wait_until(lambda: metric(server, "genserve_cancelled_total"), cancelled + 1)


def test_who_hangs_up_a_plain_request_frees_its_place_if_it_asks_for_that(server: Server) -> None:
    cancelled = metric(server, "genserve_cancelled_total")
    with (
        server.client() as client,
        client.stream("POST", URL, json=LONG, headers={"X-Hang-Up": "notice"}) as answer,
    ):
        assert answer.headers["content-type"] == "application/x-genserve-late"
        assert next(answer.iter_raw()) == b"\n"
    wait_until(lambda: metric(server, "genserve_cancelled_total"), cancelled + 1)
    with server.client() as client:
        plain = client.post(URL, json=LONG | {"num_samples": 4})
        late = client.post(URL, json=LONG | {"num_samples": 4}, headers={"X-Hang-Up": "notice"})
    empty, head, body = late.content.split(b"\n", 2)
    assert (empty, json.loads(head)["status"], body) == (b"", 200, plain.content)


def test_a_short_request_does_not_wait_until_long_ones(server: Server) -> None:
    def seconds(fields: dict[str, Any]) -> float:
        began = time.monotonic()
        with server.client() as client:
            assert client.post(URL, json=fields).status_code == 200
        return time.monotonic() - began

    with ThreadPoolExecutor(4) as pool:
        long = [pool.submit(seconds, {**LONG, "num_samples": 4, "seed": k}) for k in range(3)]
        time.sleep(0.3)
        short = [seconds({"num_samples": 1, "steps": 10}) for _ in range(5)]
        assert not any(future.done() for future in long)
        assert max(short) < min(future.result() for future in long) / 3


def test_a_bad_request_in_a_full_batch_gets_its_400(server: Server) -> None:
    good = [{"num_samples": 1, "seed": k, "steps": 200, "format": "npy"} for k in range(12)]
    with server.client() as client, ThreadPoolExecutor(13) as pool:
        running = [pool.submit(client.post, URL, json=fields) for fields in good]
        time.sleep(0.1)
        began = time.monotonic()
        bad = client.post(URL, json={"steps": "many"})
        took = time.monotonic() - began
        assert (bad.status_code, bad.json()["field"]) == (400, "steps")
        assert not all(future.done() for future in running)
        assert took < 2
        crowd = [future.result() for future in running]
        assert all(answer.status_code == 200 for answer in crowd)
        assert crowd[5].content == client.post(URL, json=good[5]).content


def test_the_same_picture_alone_in_the_crowd_streamed_and_by_grpc(server: Server) -> None:
    fields = {"num_samples": 3, "seed": 77, "steps": 20, "label": 6}
    form = {name: str(value).encode() for name, value in fields.items()}
    with server.client() as client, ThreadPoolExecutor(9) as pool:
        alone = client.post(URL, json=fields).content
        crowd = [
            pool.submit(client.post, URL, json={**LONG, "num_samples": 3, "steps": 60}) for _ in range(8)
        ]
        together = client.post(URL, json=fields)
        streamed = client.post(URL, json={**fields, "stream": True})
        by_grpc = predict(server.port + 3, "diffusion", form)
        batched = client.post("/predictions/diffusion-batched", json=fields)
        assert all(future.result().status_code == 200 for future in crowd)
    assert "transfer-encoding" not in together.headers
    assert int(together.headers["content-length"]) == len(together.content)
    assert together.content == alone
    assert parts(streamed.content)[-1][1] == alone
    assert by_grpc == alone
    assert batched.content == alone


def test_grpc_gets_clear_errors(server: Server) -> None:
    # the host answers OK whatever the status: an error is the JSON that HTTP gets
    for field, value in (("steps", b"0"), ("stream", b"true")):
        assert json.loads(predict(server.port + 3, "diffusion", {field: value}))["field"] == field
    assert predict(server.port + 3, "diffusion", {"num_samples": b"1"}).startswith(b"\x89PNG")


def test_a_batched_archive_says_that_it_does_not_stream(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/predictions/diffusion-batched", json={"stream": True})
    assert (answer.status_code, answer.json()["field"]) == (400, "stream")
    assert "batched" in answer.json()["message"]


def test_metrics_count_what_happened(server: Server) -> None:
    with server.registered("diffusion.mar", "counted"), server.client() as client:

        def count(name: str) -> float | None:
            return metric(server, f"genserve_{name}", "counted")

        wait_until(lambda: count("request_seconds_count"), 0)
        client.post("/predictions/counted", json={"num_samples": 5, "steps": 7})
        client.post("/predictions/counted", json={"num_samples": 0})
        wait_until(lambda: count("rejected_total"), 1)
        wait_until(lambda: count("request_seconds_count"), 1)
        names = ("answered", "images", "evaluations", "batches", "model_seconds", "open_seconds")
        answered, images, evaluations, batches, model_s, open_s = (count(f"{name}_total") for name in names)
    assert (answered, images, evaluations) == (1, 5, 5 * 7)
    assert batches is not None
    assert 7 <= batches <= 35
    assert model_s is not None
    assert open_s is not None
    assert 0 < model_s < open_s


def test_memory_is_flat_over_five_thousand_requests(server: Server) -> None:
    worker = httpx.get(f"{server.management}/models/diffusion").json()[0]["workers"][0]["pid"]
    if not (status := Path(f"/proc/{worker}/status")).exists():
        pytest.skip("only Linux shows another process's memory")

    def megabytes() -> float:
        match = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
        assert match is not None
        return int(match[1]) / 1024

    kinds: list[dict[str, Any]] = [
        {"num_samples": 1, "steps": 1},
        {"num_samples": 3, "steps": 2, "label": 4, "guidance": 2},
        {"num_samples": 2, "steps": 1, "format": "json"},
        {"num_samples": 1, "steps": 3, "stream": True},
        {"num_samples": 0},
    ]
    with server.client() as client, ThreadPoolExecutor(16) as pool:

        def ask(n: int) -> None:
            answers = pool.map(lambda k: client.post(URL, json=kinds[k % len(kinds)]).status_code, range(n))
            assert set(answers) == {200, 400}

        ask(1000)
        early = megabytes()
        ask(4000)
    assert megabytes() < 1.03 * early


@pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium: install it (Debian: apt-get install chromium)"
)
def test_a_browser_plays_the_stream(server: Server, tmp_path: Any) -> None:
    from playwright.sync_api import sync_playwright

    query = "num_samples=1&steps=1000&seed=5&scale=4"
    address = f"http://127.0.0.1:{server.port}/diffusion/predict?{query}"
    with server.client() as client:
        finished = np.asarray(Image.open(io.BytesIO(client.get(address).content)).convert("L"))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 112, "height": 112})
        page.set_content(
            f"<body style='margin:0'><img src='{address}&stream=true&frames=50'></body>", wait_until="commit"
        )
        page.wait_for_function("document.images[0].naturalWidth > 0")
        shots = []
        deadline = time.monotonic() + 60
        while not shots or not np.array_equal(shots[-1], finished):
            assert time.monotonic() < deadline, "the finished picture never came"
            shots.append(np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L")))
        browser.close()
    assert len({shot.tobytes() for shot in shots}) >= 3  # it was seen to change
