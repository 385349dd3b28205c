"""Vectors of words behind the service, the shipped ones."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joined_bodies import answered, one, refused, rows
from real_server import ROOT
from tensors_sent import tensor

from genserve.language.vectors import frequency_weights, same_word
from genserve.runs.directory import load_words, read_words
from genserve.runs.export import export
from genserve.serving.joined import JoiningService
from genserve.serving.requests.words import WordsRequest
from genserve.serving.service import Running, loaded

RUN = ROOT / "weights" / "words-english"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JoiningService]:
    out = tmp_path_factory.mktemp("words")
    export(RUN, out)
    running = Running(device=torch.device("cpu"), budget=8, precision="auto")
    service = loaded(JoiningService, out, WordsRequest, running)
    assert isinstance(service, JoiningService)
    yield service
    service.close()


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray[Any, Any]]:
    rows = load_words(RUN).vectors.double().numpy()
    return dict(zip(read_words(RUN), rows, strict=True))


def test_nearest_words_are_those_of_all_cosines_without_the_word_itself(
    service: JoiningService, vectors: dict[str, np.ndarray[Any, Any]]
) -> None:
    (row,) = rows(service, text="river", top_k=25)
    cosines = {word: float(vectors["river"] @ v) for word, v in vectors.items() if word != "river"}
    best = sorted(cosines.values(), reverse=True)[:25]
    assert [near["score"] for near in row["nearest"]] == pytest.approx(best, abs=2e-4)
    for near in row["nearest"]:
        assert near["score"] == pytest.approx(cosines[near["word"]], abs=2e-4)
    assert (row["text"], row["words"], row["unknown"]) == ("river", ["river"], [])


def test_a_sentence_is_the_weighted_mean_of_its_known_words(
    service: JoiningService, vectors: dict[str, np.ndarray[Any, Any]]
) -> None:
    (row,) = rows(service, task="vector", text="The xqzzy river, BLUE-eyed: isn't it?")
    words = ["the", "river", "blue-eyed" if "blue-eyed" in vectors else "blue", "eyed", "is", "n't", "it"]
    words = [word for word in words if word in row["words"]]
    assert row["words"] == words
    assert row["unknown"] == ["xqzzy"]
    places = torch.tensor([list(vectors).index(word) for word in words])
    weights = frequency_weights(places, len(vectors)).double().numpy()
    mean = sum(w * vectors[word] for w, word in zip(weights, words, strict=True))
    assert row["vector"] == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=1e-5)


def test_an_analogy_is_nearest_to_b_minus_a_plus_c(
    service: JoiningService, vectors: dict[str, np.ndarray[Any, Any]]
) -> None:
    (row,) = rows(service, task="analogy", text=["man", "king", "woman"], top_k=3)
    v = vectors["king"] - vectors["man"] + vectors["woman"]
    v /= np.linalg.norm(v)
    cosines = {w: float(v @ u) for w, u in vectors.items() if w not in ("man", "king", "woman")}
    assert row["nearest"][0]["word"] == max(cosines, key=lambda word: cosines[word]) == "queen"
    assert row["text"] == ["man", "king", "woman"]


def test_similarities_are_cosines_of_each_with_each(
    service: JoiningService, vectors: dict[str, np.ndarray[Any, Any]]
) -> None:
    texts = ["cat", "dog", "car"]
    matrix = [row["similarity"] for row in rows(service, task="similarity", text=texts)]
    expected = np.array([vectors[text] / np.linalg.norm(vectors[text]) for text in texts])
    assert np.array(matrix) == pytest.approx(expected @ expected.T, abs=1e-5)


def test_the_odd_one_fits_the_others_least(service: JoiningService) -> None:
    answers = rows(service, task="odd", text=["cat", "dog", "horse", "car"])
    assert [row["text"] for row in answers if row["odd"]] == ["car"]
    assert min(answers, key=lambda row: row["fit"])["text"] == "car"


def test_forms_of_one_word_are_left_out_if_that_is_asked_for(service: JoiningService) -> None:
    plain = [near["word"] for near in rows(service, text="doctor")[0]["nearest"]]
    distinct = [near["word"] for near in rows(service, text="doctor", distinct=True)[0]["nearest"]]
    assert "doctors" in plain
    assert not {"doctor", "doctors"} & set(distinct)
    assert len(plain) == len(distinct) == 10


@pytest.mark.parametrize("text", ["river", "contract", "the kings"])
def test_distinct_words_are_those_that_comparing_each_with_each_leaves(
    service: JoiningService, text: str
) -> None:
    (all_words,) = rows(service, text=text, top_k=1000)
    taken, kept = list(all_words["words"]), []
    for near in all_words["nearest"]:
        if not any(same_word(near["word"], word) for word in taken):
            taken.append(near["word"])
            kept.append(near)
    assert 100 < len(kept) < 1000
    (distinct,) = rows(service, text=text, top_k=100, distinct=True)
    assert distinct["nearest"] == kept[:100]


REQUESTS: list[dict[str, Any]] = [
    {"text": "king"},
    {"text": ["a blue river", "happy"], "top_k": 3},
    {"task": "vector", "text": ["cat", "dog", "we don't know"]},
    {"task": "analogy", "text": ["france", "paris", "italy"]},
    {"task": "similarity", "text": ["cat", "dog"]},
]


@settings(max_examples=20)
@given(order=st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=9))
def test_an_answer_has_the_same_bits_alone_and_in_any_company(
    service: JoiningService, order: list[int]
) -> None:
    requests = [REQUESTS[k] for k in order]
    for fields, reply in zip(requests, service.answers(requests), strict=True):
        assert reply.body == one(service, **fields).body


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "text"),
        ({"text": []}, "text"),
        ({"text": ""}, "text"),
        ({"text": "a" * 1001}, "text"),
        ({"text": 5}, "text"),
        ({"text": ["king", 5]}, "text"),
        ({"text": ["king"] * 65}, "text"),
        ({"text": "xqzzy"}, "text"),
        ({"text": "\ud800 \u65e5\u672c"}, "text"),
        ({"text": ["king", "xqzzy"]}, "text"),
        ({"task": "analogy", "text": ["a", "b"]}, "text"),
        ({"task": "similarity", "text": "king"}, "text"),
        ({"task": "odd", "text": ["cat", "dog"]}, "text"),
        ({"task": "odd", "text": ["cat", "dog", "car"], "top_k": 3}, "top_k"),
        ({"task": "vector", "text": "king", "distinct": True}, "distinct"),
        ({"text": "king", "top_k": 0}, "top_k"),
        ({"text": "king", "top_k": 1001}, "top_k"),
        ({"text": "king", "distinct": "yes"}, "distinct"),
        ({"text": "ki\ud800ng"}, "text"),
        ({"text": "king", "format": "png"}, "format"),
        ({"text": "king", "seed": 1}, "seed"),
        ({"task": "describe", "text": "king"}, "text"),
        ({"task": "guess", "text": "king"}, "task"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    service: JoiningService, fields: dict[str, Any], name: str
) -> None:
    refused(one(service, **fields), name)


def test_a_mistake_in_spelling_is_answered_by_what_was_meant(service: JoiningService) -> None:
    assert "king" in json.loads(one(service, text="kign").body)["allowed"]


def test_a_form_has_several_texts_between_commas(service: JoiningService) -> None:
    key = "form"
    fields = {"task": "similarity", "text": "cat, dog"}
    assert service.admit(key, lambda: (fields, True)) is None
    (reply,) = service.collect(30).values()
    assert reply.body == one(service, task="similarity", text=["cat", "dog"]).body


def test_a_description_shows_some_of_the_words(service: JoiningService) -> None:
    description = json.loads(one(service, task="describe").body)
    assert (description["n_words"], description["dim"], description["precision"]) == (30000, 200, "fp32")
    assert description["words"][0] == "the"
    assert len(description["words"]) == 10


def test_tensors_have_words_and_scores_apart(service: JoiningService) -> None:
    body = {"inputs": [tensor("text", ["king", "river"], "BYTES"), tensor("top_k", [3])]}
    outputs = {one["name"]: one for one in json.loads(answered(service, body).body)["outputs"]}
    assert outputs["nearest_word"]["shape"] == outputs["nearest_score"]["shape"] == [2, 1, 3]
    assert outputs["nearest_word"]["data"][0] == rows(service, text="king")[0]["nearest"][0]["word"]


def test_several_questions_in_one_body_are_answered_in_their_order(service: JoiningService) -> None:
    reply = answered(service, {"instances": [{"text": "king"}, {"text": "xqzzy"}, {"task": "describe"}]})
    first, second, third = json.loads(reply.body)["predictions"]
    assert first["texts"][0]["text"] == "king"
    assert (second["status"], second["field"]) == (400, "text")
    assert third["family"] == "words"
