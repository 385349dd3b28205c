"""Words of a text: parted by a stated rule, known or listed as unknown, with suggestions for mistakes."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_server import ROOT

from genserve.language.vocabulary import Vocabulary, words_of
from genserve.runs.directory import read_words

ENGLISH = Vocabulary(
    ["the", "do", "n't", "king", "can", "will", "blue", "eyed", "well-known", "o'clock", "kin", "cafe"]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The King's blue-eyed!", ["the", "king", "blue-eyed"]),
        ("don't can't won\u2019t shan't", ["do", "n't", "can", "n't", "will", "n't", "shall", "n't"]),
        ("he'll they've I'm we'd you're", ["he", "they", "i", "we", "you"]),
        ("Café NAÏVE İ", ["cafe", "naive", "i"]),
        ("six o'clock, 1862; 2nd_hand", ["six", "o'clock", "1862", "2nd", "hand"]),
        ("'quoted' -- dashed- n't", ["quoted", "dashed", "n't"]),
        ("привет мир", ["привет", "мир"]),
        (" \n", []),
    ],
)
def test_a_text_is_parted_by_the_rule(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_words_are_lower_case_and_stay_as_they_are(text: str) -> None:
    words = words_of(text)
    assert all(word == word.lower() for word in words)
    assert [again for word in words for again in words_of(word)] == words


def test_known_words_come_with_their_places_and_unknown_ones_once_each() -> None:
    reading = ENGLISH.read("The blue-eyed king don't zorp, blue-zorp, Zorp o'clock well-known")
    words = [ENGLISH.words[place] for place in reading.known]
    assert words == ["the", "blue", "eyed", "king", "do", "n't", "o'clock", "well-known"]
    assert reading.unknown == ("zorp", "blue-zorp")


@pytest.mark.parametrize("word", ["kign", "kng", "kingg", "king", "teh", "wll", "o'clok"])
def test_suggestions_are_the_words_one_mistake_away(word: str) -> None:
    expected = tuple(w for w in ENGLISH.words if w != word and mistakes(word, w) == 1)
    assert ENGLISH.suggestions(word, n=9) == expected
    assert ENGLISH.suggestions(word, n=1) == expected[:1]


@given(st.text(string.ascii_lowercase[:3], max_size=5))
def test_no_word_one_mistake_away_is_missed(word: str) -> None:
    words = [a + b + c for a in "abc" for b in "abc" for c in ("", "a", "bc")]
    expected = tuple(w for w in words if mistakes(word, w) == 1)
    assert Vocabulary(words).suggestions(word, n=99) == expected


def mistakes(a: str, b: str) -> int:
    """Return how many letters were added, dropped, changed or exchanged with their neighbour."""
    table = {(i, j): max(i, j) for i in range(len(a) + 1) for j in range(len(b) + 1) if not i or not j}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            costs = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1])]
            if i > 1 and j > 1 and a[i - 2 : i] == b[j - 2 : j][::-1]:
                costs.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(costs)
    return table[len(a), len(b)]


def test_nothing_is_suggested_for_what_is_no_word() -> None:
    assert ENGLISH.suggestions("k" * 10_000) == ()
    assert ENGLISH.suggestions("zorpzorp") == ()


@pytest.mark.parametrize(("words", "message"), [([], "at least one word"), (["a", "b", "a"], "'a' twice")])
def test_a_vocabulary_has_words_and_each_once(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary(words)


@pytest.mark.parametrize("path", sorted(ROOT.glob("weights/*/words.txt")), ids=lambda path: path.parent.name)
def test_every_shipped_word_is_read_as_itself(path: object) -> None:
    vocabulary = Vocabulary(read_words(path.parent))  # type: ignore[attr-defined]
    for place, word in enumerate(vocabulary.words):
        assert vocabulary.read(word) == ((place,), ()), word
