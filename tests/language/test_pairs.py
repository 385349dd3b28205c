"""Byte pairs: nothing is lost, what is learnt is what is frequent, and characters come out complete."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genserve.language.pairs import BYTES, KEPT_LENGTH, PIECES, BytePairs, learn

ENGLISH = 'the cat sat on the mat. The other cat didn\'t see the hat; it said: "the rat!"\n' * 3
texts = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture(scope="module")
def pairs() -> BytePairs:
    return BytePairs(learn(ENGLISH, 290))


@given(text=texts)
def test_every_text_comes_back(text: str, pairs: BytePairs) -> None:
    assert pairs.decode(pairs.encode(text)) == text
    assert "".join(PIECES.findall(text)) == text


@given(text=texts)
def test_a_stream_of_tokens_adds_up_to_the_text_and_shows_no_half_character(
    text: str, pairs: BytePairs
) -> None:
    speller = pairs.speller()
    parts = [speller.add(token) for token in pairs.encode(text)]
    assert "".join(parts) + speller.close() == text
    assert "\ufffd" in text or not any("\ufffd" in part for part in parts)


def test_bytes_that_are_no_text_become_a_mark() -> None:
    pairs = BytePairs(BYTES)
    speller = pairs.speller()
    assert [speller.add(0xC3), speller.add(0x41), speller.close()] == ["", "\ufffdA", ""]
    speller = pairs.speller()
    assert [speller.add(0xC3), speller.close()] == ["", "\ufffd"]
    assert pairs.decode([0xC3]) == "\ufffd"


def test_the_most_frequent_neighbours_are_joined_first() -> None:
    tokens = learn("abab abab abc", 258)
    assert tokens[:256] == BYTES
    assert tokens[256:] == ("ab", "abab")  # ab stands there five times, then abab twice, and ' abab' once
    assert BytePairs(tokens).encode("abababc") == [257, 256, ord("c")]


def test_tokens_are_learnt_as_by_counting_again_after_every_step() -> None:
    """The same by brute force: count all neighbours of the text, join the most frequent, repeat."""
    pieces = [list(piece) for piece in PIECES.findall(ENGLISH)]
    expected = list(BYTES)
    while len(expected) < 290:
        counts = Counter(a + b for piece in pieces for a, b in pairwise(piece))
        best = max(counts, key=lambda pair: (counts[pair], pair))
        if counts[best] < 2:
            break
        if best not in expected:
            expected.append(best)
        for piece in pieces:
            k = 0
            while k + 1 < len(piece):
                if piece[k] + piece[k + 1] == best:
                    piece[k : k + 2] = [best]
                k += 1
    assert learn(ENGLISH, 290) == tuple(expected)


def test_a_word_is_encoded_as_it_was_learnt_and_pieces_are_never_joined(pairs: BytePairs) -> None:
    spelled = [pairs.tokens[token] for token in pairs.encode("the cat on the mat")]
    assert "".join(spelled) == "the cat on the mat"
    assert " the" in spelled
    assert all(" " not in token[1:] for token in pairs.tokens)


def test_long_pieces_leave_nothing_in_memory() -> None:
    pairs = BytePairs(BYTES)
    for length in (KEPT_LENGTH, KEPT_LENGTH + 1, 10_000):
        assert len(pairs.encode("a" * length)) == length
    assert [len(piece) for piece in pairs._pieces] == [KEPT_LENGTH]


def test_learning_ends_when_nothing_stands_there_twice() -> None:
    assert learn("abcdefg", 1000) == BYTES
    with pytest.raises(ValueError, match="at least 256 tokens, got 255"):
        learn("abc", 255)


def test_other_tokens_are_refused() -> None:
    for tokens in (("a", "b"), (*BYTES, "ab", "ab"), BYTES[:-1]):
        with pytest.raises(ValueError, match="the 256 bytes and then others"):
            BytePairs(tokens)
