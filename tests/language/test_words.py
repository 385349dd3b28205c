"""Words and their blanks."""

import pytest

from genserve.data.text import TextConfig, load_text
from genserve.language.words import PIECES, UNKNOWN, Words, learn


def words_of(text: str) -> Words:
    return Words((UNKNOWN, "\n", *sorted(set(PIECES.findall(text)) - {"\n"})))


@pytest.mark.parametrize(
    "text",
    [
        "It is a truth, universally acknowledged.\n",
        '"My dear Mr. Bennet," said his lady to him one day, "have you heard?"\n"No."\n',
        "Good-humoured people--no, people--and (some) others; isn't it?\n",
        '"You know," she cried--"Well!"--and left.\n',
        "In the year 1811 it was 5%.\n",
        '"I am,\nand "so are you.\n',
    ],
)
def test_english_comes_back_with_its_blanks(text: str) -> None:
    words = words_of(text)
    assert words.decode(words.encode(text)) == text


def test_nearly_all_held_out_paragraphs_come_back() -> None:
    text = load_text(TextConfig(), "test")
    words = words_of(text)
    lines = text.splitlines()
    same = sum(words.decode(words.encode(line)) == line for line in lines)
    assert same / len(lines) > 0.95


def test_words_that_are_rare_are_unknown() -> None:
    tokens = learn("a b a\nb c a\n", 2)
    assert tokens == (UNKNOWN, "a", "\n", "b")
    words = Words(tokens)
    assert words.encode("c a\nd") == [0, 1, 2, 0]
    assert words.hidden == (0,)
    assert words.decode([1, 0]) == f"a {UNKNOWN}"


def test_a_text_is_continued_as_it_stands() -> None:
    words = words_of('a "b" , . -\n')

    def added(before: str, piece: str) -> str:
        return words.speller(before).add(words.tokens.index(piece))

    assert added("", "a") == "a"
    assert added("a", "b") == " b"
    assert added("a ", "b") == "b"
    assert added("a\n", "b") == "b"
    assert added("a", ",") == ","
    assert added("a", '"') == ' "'
    assert added('"a', '"') == '"'
    assert added('"a', "\n") == "\n"
    assert added('"a\n', '"') == '"'
    assert added('a"', '"') == '"'  # the quotation that began behind a ends
    assert added('"', "a") == "a"


def test_the_tokens_with_a_blank_before_them_are_known() -> None:
    words = words_of('a b "x" , .\n')
    spelled = {token for token, blank in zip(words.tokens, words.blanks("a "), strict=True) if blank}
    assert spelled == {UNKNOWN, "a", "b", "x", '"'}
    quoted = {token for token, blank in zip(words.tokens, words.blanks('"a '), strict=True) if blank}
    assert quoted == {UNKNOWN, "a", "b", "x"}


@pytest.mark.parametrize("before", ["", "a ", "a", '"a ', "( ", 'a "', "a. ", 'a\n"b ', "a - "])
def test_blanks_are_those_that_a_speller_writes(before: str) -> None:
    words = words_of('a b "x" , . ( -\n')
    written = [words.speller(before.rstrip(" ")).add(k).startswith(" ") for k in range(len(words))]
    assert words.blanks(before).tolist() == written
    assert words.blanks(before).tolist() == written  # the second time, too


def test_what_cannot_be_a_vocabulary_is_refused() -> None:
    for tokens in ((), ("a", "\n"), (UNKNOWN, "a"), (UNKNOWN, "\n", "a", "a")):
        with pytest.raises(ValueError, match="words must be <unk> and then others"):
            Words(tokens)
    with pytest.raises(ValueError, match="at least once"):
        learn("a a\n\n", 0)
    with pytest.raises(ValueError, match="fewer than 2 paragraphs"):
        learn("a a a", 2)
