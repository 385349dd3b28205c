"""Language models behind the service: what is written, streamed and scored."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_writers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joined_bodies import answered, one, refused, rows
from tensors_sent import tensor

from genserve.language.rules import Rules
from genserve.language.sampler import Text, drive, write
from genserve.sampling.noise import uniforms
from genserve.serving.fields import parse
from genserve.serving.joined import JoiningService
from genserve.serving.requests.text import TextRequest
from genserve.serving.service import Running, loaded

Model = tuple[JoiningService, Any, Any]  # the service, the network behind it, its tokens


def served(exported: Path) -> JoiningService:
    running = Running(device=torch.device("cpu"), budget=8, precision="auto")
    service = loaded(JoiningService, exported, TextRequest, running)
    assert isinstance(service, JoiningService)
    return service


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    exported, network, tokens = small_writers.recurrent(tmp_path_factory.mktemp("recurrent"))
    service = served(exported)
    yield service, network, tokens
    service.close()


@pytest.fixture(scope="module")
def ngram(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    exported, network, tokens = small_writers.ngram(tmp_path_factory.mktemp("ngram"))
    service = served(exported)
    yield service, network, tokens
    service.close()


@torch.no_grad()
def by_hand(model: Model, prompt: str, seed: int, index: int, length: int, rules: Rules, **more: Any) -> Text:
    _, network, tokens = model
    writer = write(
        tokens, network.start(1), prompt, length=length, rules=rules, uniforms=uniforms(seed, index), **more
    )
    return drive(writer, network.step)


@pytest.mark.parametrize("name", ["recurrent", "ngram"])
def test_a_text_is_the_one_that_its_seed_and_number_write_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    fields = {"prompt": "The cat ", "seed": 5, "first_index": 3, "num_samples": 4, "length": 12}
    answers = rows(model[0], **fields, temperature=0.8, top_k=40, top_p=0.95)
    rules = Rules(temperature=0.8, top_k=40, top_p=0.95)
    for k, row in enumerate(answers):
        text = by_hand(model, "The cat ", 5, 3 + k, 12, rules)
        assert (row["index"], row["text"], row["n_tokens"]) == (3 + k, text.text, 12)
        assert row["log_p"] == pytest.approx(sum(text.log_p), abs=1e-4)
    assert len({row["text"] for row in answers}) > 1


def test_a_text_ends_before_its_stop_string_and_the_others_go_on(ngram: Model) -> None:
    answers = rows(ngram[0], seed=1, num_samples=8, length=40, stop=[".", ";"])
    assert {row["ended_by"] for row in answers} >= {"stop"}
    for k, row in enumerate(answers):
        text = by_hand(ngram, "", 1, k, 40, Rules(), stop=(".", ";"))
        assert (row["text"], row["stop"]) == (text.text, text.stopped)
        assert not {".", ";"} & set(row["text"])


def test_listed_tokens_spell_the_text_and_their_logarithms_are_its_own(recurrent: Model) -> None:
    (row,) = rows(recurrent[0], seed=2, length=15, log_probabilities=True, alternatives=3)
    assert "".join(token["text"] for token in row["tokens"]) == row["text"]
    assert sum(token["log_p"] for token in row["tokens"]) == pytest.approx(row["log_p"], abs=1e-3)
    for token in row["tokens"]:
        best = [other["log_p"] for other in token["alternatives"]]
        assert best == sorted(best, reverse=True)
        assert len(best) == 3
        assert token["log_p"] <= best[0]


def test_temperature_0_takes_the_likeliest_whatever_the_seed(recurrent: Model) -> None:
    texts = {rows(recurrent[0], seed=seed, length=10, temperature=0)[0]["text"] for seed in range(3)}
    assert len(texts) == 1


@pytest.mark.parametrize("name", ["recurrent", "ngram"])
@torch.no_grad()
def test_a_score_is_the_sum_over_the_tokens_of_a_text(name: str, request: pytest.FixtureRequest) -> None:
    service, network, tokens = request.getfixturevalue(name)
    text = "The dog sat on the mat."
    (row,) = rows(service, text=text, log_probabilities=True)
    ids = [tokens.first, *tokens.encode(text)]
    log_p = network.score(torch.tensor([ids]), network.start(1)).log_p[0]
    assert row["log_p"] == pytest.approx(log_p.sum().item(), abs=1e-3)
    assert [token["log_p"] for token in row["tokens"]] == pytest.approx(log_p.tolist(), abs=1e-4)
    assert row["perplexity"] == pytest.approx(math.exp(-log_p.mean().item()), rel=1e-4)
    assert (row["characters"], row["n_tokens"], row["unknown"]) == (len(text), len(ids) - 1, 0)
    if name == "recurrent":
        bits = -log_p.sum().item() / math.log(2) / len(text)
        assert row["bits_per_character"] == pytest.approx(bits, rel=1e-4)
    else:
        assert "bits_per_character" not in row


def test_an_order_is_the_number_of_words_that_are_looked_at(ngram: Model) -> None:
    service, network, tokens = ngram
    text = "The cat ran."
    for order in (1, 2, 3):
        (row,) = rows(service, text=text, order=order)
        ids = torch.tensor([[tokens.first, *tokens.encode(text)]])
        expected = network.score(ids, network.start(1, order)).log_p.sum().item()
        assert row["log_p"] == pytest.approx(expected, abs=1e-4)


def streamed(service: JoiningService, **fields: Any) -> tuple[str, bytes]:
    """Return content type and bytes of a stream that is looked at now and then."""
    assert service.admit("watched", lambda: (fields, False)) is None
    parts = []
    while "watched" in service.open:
        replies = service.collect(0.002)
        if reply := replies.get("watched") or service.progress("watched"):
            parts.append(reply.body)
    return reply.content_type, b"".join(parts)


@pytest.mark.parametrize("stream", ["jsonl", "sse", True])
def test_a_stream_has_every_token_and_then_the_answer(stream: Any, recurrent: Model) -> None:
    fields = {"seed": 4, "num_samples": 2, "length": 30}
    content_type, body = streamed(recurrent[0], **fields, stream=stream)
    if stream == "jsonl":
        assert content_type == "application/jsonl"
        lines = [json.loads(line) for line in body.splitlines()]
    else:
        assert content_type == "text/event-stream"
        *events, last, rest = body.decode().split("\n\n")
        assert (last, rest) == ("data: [DONE]", "")
        lines = [json.loads(event.removeprefix("data: ")) for event in events]
    *tokens, end = lines
    assert end.pop("done") is True
    assert end == json.loads(one(recurrent[0], **fields).body)
    for k, row in enumerate(end["texts"]):
        mine = [token["text"] for token in tokens if token["index"] == k]
        assert ("".join(mine), len(mine)) == (row["text"], 30)


REQUESTS: list[dict[str, Any]] = [
    {"seed": 1, "num_samples": 3, "length": 9},
    {"seed": 1, "num_samples": 1, "length": 20, "prompt": "The cat"},
    {"seed": 2, "num_samples": 2, "length": 5, "temperature": 0.5, "log_probabilities": True},
    {"text": "The dog ran on the mat."},
    {"seed": 3, "length": 12, "stop": ["a", "e"], "top_p": 0.8},
]


@settings(max_examples=20)
@given(order=st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=8))
@pytest.mark.parametrize("name", ["recurrent", "ngram"])
def test_an_answer_has_the_same_bits_alone_and_in_any_company(
    name: str, order: list[int], request: pytest.FixtureRequest
) -> None:
    service = request.getfixturevalue(name)[0]
    requests = [REQUESTS[k] for k in order]
    for fields, reply in zip(requests, service.answers(requests), strict=True):
        assert reply.body == one(service, **fields).body


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"prompt": "a" * 2001}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"text": ""}, "text"),
        ({"text": "a" * 10_001}, "text"),
        ({"text": "a", "seed": 1}, "seed"),
        ({"text": "a", "prompt": "b"}, "prompt"),
        ({"text": "a", "stream": "sse"}, "stream"),
        ({"text": "a", "format": "text"}, "format"),
        ({"task": "score"}, "text"),
        ({"task": "write", "text": "a"}, "text"),
        ({"length": 0}, "length"),
        ({"length": 1001}, "length"),
        ({"num_samples": 65}, "num_samples"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 11}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 9}, "stop"),
        ({"stop": "a" * 101}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"order": 2}, "order"),
        ({"alternatives": 3}, "alternatives"),
        ({"alternatives": 21, "log_probabilities": True}, "alternatives"),
        ({"num_samples": 64, "length": 1000, "log_probabilities": True, "alternatives": 20}, "alternatives"),
        ({"stream": "gif"}, "stream"),
        ({"stream": True, "format": "text"}, "format"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"task": "describe", "seed": 1}, "seed"),
        ({"steps": 5}, "steps"),
        ({"stop": []}, "stop"),
        ({"prompt": "a\ud800b"}, "prompt"),
        ({"text": "\udfff"}, "text"),
        ({"stop": ["a", "\udc00"]}, "stop"),
        ({"text": "\u65e5" * 1400}, "text"),  # 4,200 tokens
    ],
)
def test_what_does_not_fit_is_refused_by_name(fields: dict[str, Any], name: str, recurrent: Model) -> None:
    refused(one(recurrent[0], **fields), name)


def test_what_one_request_may_take_is_limited(recurrent: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextRequest, "work_max", 50)
    assert json.loads(one(recurrent[0], length=51).body)["field"] == "length"
    assert one(recurrent[0], length=50).status == 200


def test_any_text_may_be_a_prompt_or_be_scored(recurrent: Model, ngram: Model) -> None:
    for text in ("\u65e5\u672c\u8a9e", "\x00", "   ", "\n\n", "\U0001f600" * 50):
        for service, *_ in (recurrent, ngram):
            assert one(service, prompt=text, length=3, seed=1).status == 200
            assert one(service, text=text).status in (200, 400)
            assert one(service, prompt=text, length=3, format="text").status == 200


def test_a_prompt_may_end_in_a_mark_that_has_no_blank_behind_it(ngram: Model) -> None:
    _, _, tokens = ngram
    for prompt in ("a ( ", "a - ", "( "):
        assert not tokens.blanks(prompt).any()
        (row,) = rows(ngram[0], prompt=prompt, length=4, seed=1)
        assert row["n_tokens"] == 4


def test_the_size_of_an_answer_is_no_less_than_a_quarter_of_its_bytes(recurrent: Model) -> None:
    """What is let in by its size is below the limit of the host."""
    listed = {"log_probabilities": True, "alternatives": 20}
    written: dict[str, Any] = {"length": 200, "num_samples": 3}
    for fields in (written | listed, {"text": "The cat sat on the mat. " * 20} | listed):
        job = parse(TextRequest, fields, text=False).job(recurrent[0].spec, recurrent[0].running.computed)
        assert job is not None
        assert len(one(recurrent[0], **fields).body) <= 4 * job.size + 1000


def test_a_prompt_is_read_once_for_all_texts_of_a_request(recurrent: Model) -> None:
    service, _, tokens = recurrent
    fields: dict[str, Any] = {"prompt": "The cat sat on", "seed": 3}
    for length in (1, 4):
        reply = one(service, num_samples=5, length=length, **fields)
        assert int(reply.headers["X-Work"]) == 1 + len(tokens.encode("The cat sat on")) + 5 * (length - 1)
        alone = [rows(service, first_index=k, length=length, **fields)[0] for k in range(5)]
        assert json.loads(reply.body)["texts"] == alone


def test_plain_text_is_the_prompt_and_what_follows(recurrent: Model) -> None:
    fields = {"prompt": "The cat", "seed": 1, "length": 8}
    reply = one(recurrent[0], **fields, format="text")
    assert reply.content_type == "text/plain; charset=utf-8"
    text = rows(recurrent[0], **fields)[0]["text"]
    assert reply.body.decode() == f"The cat{text}\n"
    assert reply.headers["X-Seed"] == "1"


def test_tensors_and_instances_have_texts(recurrent: Model) -> None:
    service = recurrent[0]
    body = {"inputs": [tensor("seed", [1, 2]), tensor("length", [5]), tensor("num_samples", [2])]}
    outputs = {one["name"]: one for one in json.loads(answered(service, body).body)["outputs"]}
    assert outputs["text"]["shape"] == outputs["log_p"]["shape"] == [2, 2]
    assert outputs["text"]["data"][:2] == [
        row["text"] for row in rows(service, seed=1, length=5, num_samples=2)
    ]
    reply = answered(service, {"instances": [{"seed": 1, "length": 3}, {"length": 0}, {"text": "The cat"}]})
    first, second, third = json.loads(reply.body)["predictions"]
    assert first["texts"][0]["n_tokens"] == 3
    assert second["field"] == "length"
    assert third["texts"][0]["characters"] == 7


def test_a_description_shows_some_of_the_tokens(ngram: Model) -> None:
    description = json.loads(one(ngram[0], task="describe").body)
    assert (description["network"], description["orders"], description["precision"]) == ("ngram", 3, "fp32")
    assert len(description["tokens"]) == 10
