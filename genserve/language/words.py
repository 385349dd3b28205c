"""Tokens by words: words, numbers and runs of marks, with blanks between them by the rules of English.

Words that are not in the vocabulary are one token, the unknown word, which is never drawn.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "<unk>"
PIECES = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|\n|(?:[^\s\w]|_)+")
CLOSING = frozenset(".,;:!?)]}'%-/")  # no blank before a run of marks that begins with one of these
ENDING = (".", ",", ";", ":", "!", "?")  # a quote behind one of these is the end of a quotation
OPENING = frozenset("([{-/")  # no blank after a run of marks that ends with one of these


def learn(text: str, least: int = 2) -> tuple[str, ...]:
    """Return the unknown word and the pieces that stand in a text at least this often, frequent ones first.

    Raises:
        ValueError: least is below 1, or the text has no line or none such piece.
    """
    if least < 1:
        raise ValueError(f"a word must be seen at least once to be known, got {least}")
    counts = Counter(PIECES.findall(text))
    known = sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word))
    if "\n" not in known:
        raise ValueError(f"the text has fewer than {least} paragraphs")
    return (UNKNOWN, *known)


class Words:
    """Encodes text with tokens from `learn`.

    Raises:
        ValueError: the tokens lack the unknown word or the end of a line, or one stands there twice.
    """

    kind = "words"
    hidden: tuple[int, ...] = (0,)  # tokens that are never drawn

    def __init__(self, tokens: Sequence[str]) -> None:
        if not tokens or tokens[0] != UNKNOWN or "\n" not in tokens or len(set(tokens)) < len(tokens):
            raise ValueError(
                f"words must be {UNKNOWN} and then others, the end of a line among them, once each"
            )
        self.tokens = tuple(tokens)
        self._ids = {token: k for k, token in enumerate(tokens)}
        self._blanks: dict[tuple[bool, bool], NDArray[np.bool_]] = {}  # by the state of a speller
        self.first = self._ids["\n"]  # stands before a text, as before each of its paragraphs

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; its blanks are lost."""
        return [self._ids.get(piece, 0) for piece in PIECES.findall(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens that begin a paragraph."""
        speller = self.speller()
        return "".join(speller.add(k) for k in ids)

    def speller(self, before: str = "") -> "Speller":
        """Return what writes tokens behind a text."""
        return Speller(self.tokens, before)

    def blanks(self, before: str) -> NDArray[np.bool_]:
        """Return which tokens have a blank between the text and them, (n_tokens,)."""
        state = self.speller(before.rstrip(" ")).state
        if state not in self._blanks:
            speller, blanks = self.speller(), []
            for token in range(len(self.tokens)):
                speller.state = state
                blanks.append(speller.add(token)[0] == " ")
            self._blanks[state] = np.array(blanks)
        return self._blanks[state]


class Speller:
    """Writes tokens as text, one after the other.

    Args:
        tokens: the vocabulary.
        before: the text that the tokens continue; its last paragraph decides which quotations are open.
    """

    def __init__(self, tokens: Sequence[str], before: str) -> None:
        self._tokens = tokens
        self._quoted = False  # in a quotation
        self._glued = True  # the next token follows without a blank
        for piece in PIECES.findall(before.rpartition("\n")[2]):
            self._spelled(piece)
        self._glued = self._glued or before[-1:].isspace()

    @property
    def state(self) -> tuple[bool, bool]:
        """What decides how the next token is written: in a quotation; it follows without a blank."""
        return self._quoted, self._glued

    @state.setter
    def state(self, state: tuple[bool, bool]) -> None:
        self._quoted, self._glued = state

    def add(self, token: int) -> str:
        """Return what a token adds to the text: the blank before it, if there is one, and itself."""
        return self._spelled(self._tokens[token])

    def close(self) -> str:
        """Return what is still to be written: nothing."""
        return ""

    def _spelled(self, piece: str) -> str:
        marks = piece != "\n" and piece != UNKNOWN and not piece[0].isalnum()
        joined = self._glued or piece == "\n" or (marks and self._follows(piece))
        if piece == "\n":
            self._quoted, self._glued = False, True
            return piece
        if marks and piece.count('"') % 2:
            # ," and ." end a quotation even if none was open, as drawn text may have it
            self._quoted = not self._quoted and piece.partition('"')[0][-1:] not in ENDING
        self._glued = marks and (piece[-1] in OPENING or (piece.endswith(('"', "\"'")) and self._quoted))
        return piece if joined else f" {piece}"

    def _follows(self, marks: str) -> bool:
        """Return whether a run of marks stands without a blank behind the word before it."""
        return self._quoted if marks[0] == '"' else marks[0] in CLOSING
