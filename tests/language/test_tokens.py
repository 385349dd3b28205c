"""tokens.json, and prompts."""

from pathlib import Path

import pytest

from genserve.files import write_json
from genserve.language.pairs import BYTES, BytePairs, learn
from genserve.language.tokens import FILE, Tokens, prompted, read_tokens, write_tokens
from genserve.language.words import UNKNOWN, Words

PAIRS = BytePairs(learn("the cat and the hat and the é\n" * 3, 280))
WORDS = Words((UNKNOWN, "\n", "the", "cat"))


@pytest.mark.parametrize("tokens", [PAIRS, WORDS])
def test_a_vocabulary_comes_back(tokens: Tokens, tmp_path: Path) -> None:
    write_tokens(tmp_path, tokens)
    again = read_tokens(tmp_path)
    assert (again.kind, again.tokens, again.first) == (tokens.kind, tokens.tokens, tokens.first)
    assert again.encode("the cat\n") == tokens.encode("the cat\n")
    assert tokens.tokens[tokens.first] == "\n"


@pytest.mark.parametrize("tokens", [PAIRS, WORDS])
def test_a_blank_at_the_end_of_a_prompt_is_left_to_the_next_token(tokens: Tokens) -> None:
    bare = tokens.encode("the cat")
    assert prompted(tokens, "the cat") == (bare, False)
    assert prompted(tokens, "the cat ") == (bare, True)
    assert prompted(tokens, "the cat   ") == (bare, True)
    assert prompted(tokens, "the cat\n") == ([*bare, tokens.first], False)
    assert prompted(tokens, "the cat\n ") == ([*bare, tokens.first], False)
    assert prompted(tokens, "  ") == prompted(tokens, "") == ([], False)


def test_torn_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokens\.json"):
        read_tokens(tmp_path)
    for content, message in (
        ({"kind": "runes", "tokens": []}, "kind must be pairs, words|kind must be one of pairs, words"),
        ({"tokens": []}, "no 'kind'"),
        ({"kind": "pairs", "tokens": list(BYTES[1:])}, "the 256 bytes"),
        ({"kind": "words", "tokens": 5}, "is not a list of tokens"),
    ):
        write_json(tmp_path / FILE, content)
        with pytest.raises(
            ValueError, match=rf"tokens\.json is not a list of tokens: .*({message})|{message}"
        ):
            read_tokens(tmp_path)
