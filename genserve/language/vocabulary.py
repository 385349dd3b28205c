"""Find the words of a text in a vocabulary, and say which of them are unknown.

The rule: case and accents go; a word is letters and digits, with apostrophes and hyphens inside. Short forms
are parted as corpora of English part them: "don't" is "do" and "n't", of "king's" or "he'll" the ending is
left out. A word that the vocabulary lacks is the words between its hyphens and apostrophes, if it has all of
these: "blue-eyed" is "blue" and "eyed".
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
NEGATION = "n't"
CUT_SHORT = {"ca": "can", "wo": "will", "sha": "shall"}  # what is left of can't, won't and shan't
ENDING = re.compile(r"'(?:s|re|ve|ll|d|m)$")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 24  # letters of a word that is worth a suggestion


class Reading(NamedTuple):
    """The words of a text."""

    known: tuple[int, ...]  # their places in the vocabulary, in the order of the text
    unknown: tuple[str, ...]  # in the order of the text, each once


def words_of(text: str) -> list[str]:
    """Return the words of a text in order, by the rule of this module."""
    text = unicodedata.normalize("NFD", text.replace("\u2019", "'").lower())
    words: list[str] = []
    for word in WORD.findall("".join(c for c in text if not unicodedata.combining(c))):
        if word.endswith(NEGATION) and word != NEGATION:
            stem = word.removesuffix(NEGATION)
            words += [CUT_SHORT.get(stem, stem), NEGATION]
        else:
            words.append(ENDING.sub("", word))
    return words


class Vocabulary:
    """Words and their places, the most frequent first.

    Args:
        words: as `words_of` returns them, each once.

    Raises:
        ValueError: there are none, or one is there twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.index = {word: k for k, word in enumerate(self.words)}
        if not self.words:
            raise ValueError("a vocabulary needs at least one word")
        if len(self.index) < len(self.words):
            twice = next(word for k, word in enumerate(self.words) if self.index[word] != k)
            raise ValueError(f"the vocabulary has the word {twice!r} twice")

    def __len__(self) -> int:
        return len(self.words)

    def read(self, text: str) -> Reading:
        """Return the words of a text, known and unknown, by the rule of this module."""
        known: list[int] = []
        unknown: dict[str, None] = {}  # in order, each once
        for word in words_of(text):
            parts = [word] if word in self.index else re.split("['-]", word)
            if all(part in self.index for part in parts):
                known += [self.index[part] for part in parts]
            else:
                unknown[word] = None
        return Reading(tuple(known), tuple(unknown))

    def suggestions(self, word: str, n: int = 3) -> tuple[str, ...]:
        """Return up to n words that are one mistake away from this one, the most frequent first.

        A mistake is a letter too many, too few or wrong, or two neighbours exchanged.

        Source: Damerau 1964, "A technique for computer detection and correction of spelling errors".
        """
        if len(word) > LONGEST:
            return ()
        near = {self.index[other] for other in _mistakes(word) if other in self.index and other != word}
        return tuple(self.words[k] for k in sorted(near)[:n])


def _mistakes(word: str) -> Iterator[str]:
    """Yield the words that one mistake makes of this one, some of them several times."""
    for k in range(len(word) + 1):
        head, tail = word[:k], word[k:]
        yield from (head + letter + tail for letter in LETTERS)
        if tail:
            yield head + tail[1:]
            yield from (head + letter + tail[1:] for letter in LETTERS)
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
