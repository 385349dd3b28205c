"""Tokens by byte-pair encoding: the bytes of a text, joined where they often stand together.

Every text has an encoding, because the 256 bytes are tokens; encoding and decoding lose nothing. A token is
written as a string with one character per byte (Latin-1), so that English ones can be read.

Sources: Gage 1994, "A new algorithm for data compression"; Sennrich et al. 2016 (arXiv:1508.07909); over
bytes, and within pieces of text, as Radford et al. 2019.
"""

import codecs
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

BYTES = tuple(map(chr, range(256)))
# A word or marks with the blank before it, a digit, or other white space: pairs never cross these pieces.
PIECES = re.compile(r" ?[^\W\d_]+(?:'[^\W\d_]+)?| ?\d| ?(?:[^\s\w]|_)+|\s")

KEPT, KEPT_LENGTH = 100_000, 32  # pieces whose tokens are kept, and characters of one


def learn(text: str, size: int) -> tuple[str, ...]:
    """Return `size` tokens, the bytes first and then the pairs in the order in which they were joined.

    Each step joins the two neighbours that are the most frequent in the text; of several, the last in the
    order of their strings. It ends early if no pair stands there twice.

    Raises:
        ValueError: size is below 256.
    """
    if size < len(BYTES):
        raise ValueError(f"byte pairs need at least {len(BYTES)} tokens, got {size}")
    counts = Counter(PIECES.findall(text))
    pieces = [(list(_bytes(piece)), n) for piece, n in counts.items()]
    pairs: Counter[str] = Counter()  # how often two neighbours spell this string
    holders: defaultdict[str, set[int]] = defaultdict(set)  # the pieces in which they stand
    for k, (parts, n) in enumerate(pieces):
        for pair in _neighbours(parts):
            pairs[pair] += n
            holders[pair].add(k)
    tokens = dict.fromkeys(BYTES)
    while len(tokens) < size and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] < 2:
            break
        tokens[best] = None
        for k in holders.pop(best):
            parts, n = pieces[k]
            for pair in _neighbours(parts):
                pairs[pair] -= n
            joined = _joined(parts, best)
            pieces[k] = (joined, n)
            for pair in _neighbours(joined):
                pairs[pair] += n
                holders[pair].add(k)
        del pairs[best]
    return tuple(tokens)


class BytePairs:
    """Encodes text with tokens from `learn`.

    Raises:
        ValueError: the tokens do not begin with the 256 bytes, or one stands there twice.
    """

    kind = "pairs"
    hidden: tuple[int, ...] = ()  # tokens that are never drawn

    def __init__(self, tokens: Sequence[str]) -> None:
        if tuple(tokens[: len(BYTES)]) != BYTES or len(set(tokens)) < len(tokens):
            raise ValueError("byte pairs must be the 256 bytes and then others, each of them once")
        self.tokens = tuple(tokens)
        self._ids = {token: k for k, token in enumerate(tokens)}
        self._pieces: dict[str, list[int]] = {}
        self.first = self._ids["\n"]  # stands before a text, as before each of its paragraphs

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text: in each piece, the pair that was learnt first is joined first."""
        return [token for piece in PIECES.findall(text) for token in self._encoded(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens; bytes that are no UTF-8 become U+FFFD."""
        return self.data(ids).decode(errors="replace")

    def data(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of tokens."""
        return "".join(self.tokens[k] for k in ids).encode("latin-1")

    def speller(self, before: str = "") -> "Speller":
        """Return what writes tokens behind a text."""
        return Speller(self)

    def blanks(self, before: str) -> NDArray[np.bool_]:
        """Return which tokens begin with a blank, (n_tokens,)."""
        return np.array([token.startswith(" ") for token in self.tokens])

    def _encoded(self, piece: str) -> list[int]:
        ids = self._pieces.get(piece)
        if ids is None:
            parts, last = list(_bytes(piece)), len(self.tokens)
            while len(parts) > 1:
                best = min(self._ids.get(pair, last) for pair in _neighbours(parts))
                if best == last:
                    break
                parts = _joined(parts, self.tokens[best])
            ids = [self._ids[part] for part in parts]
            # a text has few different pieces and short ones, an attack has many long ones
            if len(self._pieces) < KEPT and len(piece) <= KEPT_LENGTH:
                self._pieces[piece] = ids
        return ids


class Speller:
    """Writes tokens as text, one after the other; a character appears when its last byte is there.

    Args:
        pairs: the vocabulary.
    """

    def __init__(self, pairs: BytePairs) -> None:
        self._pairs = pairs
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Return the characters that a token completes."""
        return self._decoder.decode(self._pairs.data([token]))

    def close(self) -> str:
        """Return U+FFFD for a character that never was completed, else nothing."""
        return self._decoder.decode(b"", final=True)


def _bytes(text: str) -> str:
    return text.encode("utf-8", "replace").decode("latin-1")


def _neighbours(parts: Sequence[str]) -> Iterable[str]:
    return map(str.__add__, parts, parts[1:])


def _joined(parts: Sequence[str], pair: str) -> list[str]:
    """Return the parts with all neighbours that spell `pair` joined, from the left."""
    result, k = [], 0
    while k < len(parts):
        if k + 1 < len(parts) and parts[k] + parts[k + 1] == pair:
            result.append(pair)
            k += 2
        else:
            result.append(parts[k])
            k += 1
    return result
