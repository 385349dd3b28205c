"""Keep the vocabulary of a run beside its weights (tokens.json), and read a prompt with it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from genserve.files import as_json, parsing, read_json, update
from genserve.language.pairs import BytePairs
from genserve.language.words import Words

FILE = "tokens.json"
KINDS: dict[str, type[BytePairs] | type[Words]] = {each.kind: each for each in (BytePairs, Words)}


class Speller(Protocol):
    """Writes tokens as text, one after the other."""

    def add(self, token: int) -> str:
        """Return what a token adds to the text; it may be empty until a later one is there."""

    def close(self) -> str:
        """Return what is still to be written."""


class Tokens(Protocol):
    """A vocabulary."""

    kind: str
    tokens: tuple[str, ...]
    first: int  # stands before a text
    hidden: tuple[int, ...]  # tokens that are never drawn

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def speller(self, before: str = "") -> Speller: ...

    def blanks(self, before: str) -> NDArray[np.bool_]: ...


class Prompt(NamedTuple):
    """A text to be continued."""

    ids: list[int]
    blank: bool  # it ends in a blank, which the first new token is to bring along


def prompted(tokens: Tokens, text: str) -> Prompt:
    """Return the tokens of a prompt.

    A word is one token with the blank before it, so a blank at the end would be a token that a model has
    hardly seen there. It is taken off, and the first new token must be one that begins with a blank.
    """
    kept = text.rstrip(" ")
    blank = kept != text and bool(kept) and not kept[-1].isspace()
    return Prompt(tokens.encode(kept), blank)


def write_tokens(directory: Path, tokens: Tokens) -> None:
    """Write the tokens of a run; raises as `files.update`."""
    update(directory / FILE, as_json({"kind": tokens.kind, "tokens": list(tokens.tokens)}))


def read_tokens(directory: Path) -> Tokens:
    """Return the vocabulary of a run.

    Raises:
        FileNotFoundError, OSError: it has no such file, or it cannot be read.
        ValueError: the file is torn, or of a kind that this version does not read.
    """
    path = directory / FILE
    content = read_json(path)
    with parsing(path, "a list of tokens"):
        if content["kind"] not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {content['kind']!r}")
        return KINDS[content["kind"]](content["tokens"])
