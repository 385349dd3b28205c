"""The course's families on a real TorchServe: each task by HTTP, streams, both protocols, crowds."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image
from real_server import ROOT, Server
from tensors_sent import tensor

pytestmark = pytest.mark.server
SEVEN = (ROOT / "docs" / "images" / "seven.png").read_bytes()
TEXT_MODELS = ("text", "ngram")


def post(server: Server, name: str, **fields: Any) -> httpx.Response:
    with server.client() as client:
        return client.post(f"/predictions/{name}", json=fields)


def answer(server: Server, name: str, **fields: Any) -> Any:
    reply = post(server, name, **fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_prompt_is_continued_and_the_same_seed_continues_it_alike(course: Server, name: str) -> None:
    fields = {"prompt": "It is a truth universally", "seed": 3, "num_samples": 2, "length": 40}
    first, again = answer(course, name, **fields), answer(course, name, **fields)
    assert first == again
    texts = [row["text"] for row in first["texts"]]
    assert len(set(texts)) == 2
    assert all(40 < len(text) < 800 for text in texts)
    plain = post(course, name, **fields | {"num_samples": 1}, format="text")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert plain.text == f"It is a truth universally{texts[0]}\n"


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("stream", ["sse", "jsonl"])
def test_tokens_are_streamed_as_they_are_drawn(course: Server, name: str, stream: str) -> None:
    fields = {"seed": 1, "length": 60}
    whole_answer = answer(course, name, **fields)
    with (
        course.client() as client,
        client.stream("POST", f"/predictions/{name}", json=fields | {"stream": stream}) as reply,
    ):
        assert reply.status_code == 200
        lines = [line for line in reply.iter_lines() if line]
    if stream == "sse":
        assert reply.headers["content-type"] == "text/event-stream"
        assert lines.pop() == "data: [DONE]"
        lines = [line.removeprefix("data: ") for line in lines]
    *tokens, end = map(json.loads, lines)
    assert end == whole_answer | {"done": True}
    assert "".join(token["text"] for token in tokens) == end["texts"][0]["text"]


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_likely_text_scores_better_than_the_same_words_in_another_order(course: Server, name: str) -> None:
    likely = answer(course, name, text="She was not at all sorry to be going.")["texts"][0]
    shuffled = answer(course, name, text="going be to sorry all at not was She.")["texts"][0]
    assert likely["perplexity"] < shuffled["perplexity"] / 2


def test_words_are_compared(course: Server) -> None:
    (row,) = answer(course, "words", text="river", top_k=3)["texts"]
    assert "rivers" in [near["word"] for near in row["nearest"]]
    (row,) = answer(course, "words", task="analogy", text=["man", "king", "woman"])["texts"]
    assert row["nearest"][0]["word"] == "queen"
    with course.client() as client:
        odd = client.get("/words/predict", params={"task": "odd", "text": "cat,dog,horse,car"}).json()
    assert [row["text"] for row in odd["texts"] if row["odd"]] == ["car"]


def test_a_crowd_gets_what_each_of_it_gets_alone(course: Server) -> None:
    requests = [
        ("words", {"text": ["a ship at sea", "tax"], "top_k": 4}),
        *((name, {"seed": k, "length": 20 + k}) for name in TEXT_MODELS for k in range(3)),
        *((name, {"text": "A very fine evening."}) for name in TEXT_MODELS),
    ]
    alone = [post(course, name, **fields).content for name, fields in requests]
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(post, course, name, **fields) for name, fields in requests * 4]
        together = [job.result().content for job in jobs]
    assert together == alone * 4


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("words", {"text": "xqzzy"}, "text"),
        ("words", {"images": base64.b64encode(SEVEN).decode()}, "images"),
        ("ngram", {"order": 9}, "order"),
        ("ngram", {"prompt": "a" * 2001}, "prompt"),
        ("ngram", {"steps": 3}, "steps"),
    ],
)
def test_a_mistake_is_400_and_names_the_field(
    course: Server, name: str, fields: dict[str, Any], field: str
) -> None:
    reply = post(course, name, **fields)
    assert (reply.status_code, reply.json()["field"]) == (400, field)


def progressive(scans: int) -> bytes:
    """Return a JPEG of 2048 x 2048 pixels whose last scan stands there many times."""
    file = io.BytesIO()
    Image.new("L", (2048, 2048), 90).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def test_no_request_ends_a_worker_or_keeps_the_next_client_waiting_for_long(course: Server) -> None:
    """Each of them did one or the other."""
    everything = {"num_samples": 24, "length": 1000, "log_probabilities": True, "alternatives": 20}
    long = {"prompt": "a " * 900, "num_samples": 8, "length": 1, "seed": 1}
    wide = {"text": ["river", "walk", "tax", "go"] * 16, "top_k": 1000, "distinct": True}
    largest = {"instances": [{"text": ["river"] * 64, "top_k": 1000}] * 5}
    with course.client() as client, ThreadPoolExecutor(4) as pool:
        for name, body, expected in (
            ("text", everything, 400),
            ("ngram", long, 200),
            ("ngram", {"prompt": "He said - ", "length": 3, "seed": 1}, 200),
            ("words", wide, 200),
            ("words", largest, 200),
            ("words", {"instances": largest["instances"] * 2}, 400),
            ("classifier", progressive(3000), 400),
        ):
            sent = {"content": body} if isinstance(body, bytes) else {"json": body}
            path = f"/predictions/{name}"
            replies = [pool.submit(client.post, path, **sent, timeout=120) for _ in range(3)]
            small = client.post(path, json={"task": "describe"}, timeout=30)
            assert small.status_code == 200, small.text
            assert [reply.result().status_code for reply in replies] == [expected] * 3, name


def test_both_protocols_and_descriptions_work_for_every_family(course: Server) -> None:
    with course.client() as client:
        for name, fields in (
            ("words", {"text": "river"}),
            ("text", {"seed": 1, "length": 5}),
            ("ngram", {"seed": 1, "length": 5}),
        ):
            body = {"instances": [fields, fields]}
            first, second = client.post(f"/v1/models/{name}:predict", json=body).json()["predictions"]
            assert first == second == answer(course, name, **fields)
            inputs = [
                tensor(key, [value], "INT64" if isinstance(value, int) else "BYTES")
                for key, value in fields.items()
            ]
            outputs = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).json()["outputs"]
            assert {"settings"} < {output["name"] for output in outputs}
            described = answer(course, name, task="describe")
            assert described["family"] == ("words" if name == "words" else "text")
