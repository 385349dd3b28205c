"""The measures of vectors of words, against scipy and against vectors whose answers are known."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from genserve.data.corpora import Entry
from genserve.language.vocabulary import Vocabulary
from genserve.measure.words import (
    Agreement,
    Question,
    Rated,
    Share,
    agreement,
    analogies,
    defined,
    forms,
    ranks,
    read_questions,
    read_rated,
    spearman,
)
from genserve.models.words import WordVectors, fixed

WORDS = ("man", "woman", "king", "queen", "bread", "cake")
VOCABULARY = Vocabulary(WORDS)


def vectors() -> WordVectors:
    """Axes: royal, female, food."""
    rows = torch.tensor([[1, -1, 0], [1, 1, 0], [3, -1, 0], [3, 1, 0], [0, 0.2, 3], [0, -0.2, 3]])
    model = WordVectors(6, 3)
    model.vectors.copy_(fixed(rows))
    return model


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_correlation_of_ranks_is_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = zip(*pairs, strict=True)
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_equal_values_share_their_ranks() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1, 3.5, 2]


def test_agreement_counts_the_pairs_that_are_known() -> None:
    rated = [Rated("king", "queen", 9), Rated("king", "man", 5), Rated("king", "bread", 1)]
    unknown = [Rated("king", "zorp", 10)]
    assert agreement(vectors(), VOCABULARY, rated + unknown) == Agreement(pytest.approx(0.5), 3, 4)
    flipped = [Rated("king", "queen", 5), Rated("king", "man", 9), Rated("king", "bread", 1)]
    assert agreement(vectors(), VOCABULARY, flipped).spearman == pytest.approx(1)
    with pytest.raises(ValueError, match="the vocabulary has 0 of 1 rated pairs"):
        agreement(vectors(), VOCABULARY, unknown)


def test_an_analogy_is_right_if_its_answer_is_best_and_words_of_the_question_do_not_count() -> None:
    right = Question("family", "man", "woman", "king", "queen")
    wrong = Question("family", "man", "woman", "king", "bread")
    unknown = Question("family", "man", "woman", "zorp", "queen")
    assert analogies(vectors(), VOCABULARY, [right, wrong, unknown]) == Share(1, 2, 3)
    assert analogies(vectors(), VOCABULARY, [right] * 300).accuracy == 1
    assert analogies(vectors(), VOCABULARY, [unknown]).accuracy == 0


def test_a_definition_finds_its_word_among_the_nearest() -> None:
    royal = Entry(("queen",), ("king", "woman", "woman", "king"))
    food = Entry(("queen",), ("bread", "cake", "bread", "cake"))
    short, nameless = Entry(("queen",), ("king",)), Entry((), ("king",) * 4)
    assert defined(vectors(), VOCABULARY, [royal, food, short, nameless], within=1) == Share(1, 2, 4)
    assert defined(vectors(), VOCABULARY, [food], within=4).right == 1


def test_forms_are_counted_among_the_nearest() -> None:
    words = Vocabulary(("king", "kings", "queen", "queens", "bread", "cake"))
    assert forms(vectors(), words, [0, 2], n=2) == Share(
        1, 4, 4
    )  # the nearest of "queen" are king and queens
    assert forms(vectors(), words, [0, 2], n=5) == Share(2, 10, 10)


def test_the_files_are_read_as_their_authors_wrote_them(tmp_path: Path) -> None:
    rated = tmp_path / "rated.tsv"
    rated.write_text("# A title\n# Word 1\tWord 2\tHuman\nOPEC\toil\t8.59\n\ntiger\tcat\t7.35\textra\n")
    assert read_rated(rated) == [Rated("opec", "oil", 8.59), Rated("tiger", "cat", 7.35)]
    questions = tmp_path / "questions.txt"
    questions.write_text(": family\nboy girl King queen\n: gram1-adverb\ncalm calmly safe safely\n")
    family, adverb = read_questions(questions)
    assert family == Question("family", "boy", "girl", "king", "queen")
    assert (family.syntactic, adverb.syntactic) == (False, True)


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        ("a\tb\n", read_rated, "is not a table of words and ratings"),
        ("a\tb\thigh\n", read_rated, "is not a table of words and ratings: could not convert"),
        ("a b c\n", read_questions, "is not a list of analogies"),
    ],
)
def test_another_file_is_refused_by_name(text: str, read: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=f"file {message}"):
        read(tmp_path / "file")  # type: ignore[operator]
