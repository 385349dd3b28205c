"""Read several corpora as one text, and the dictionary among them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from genserve.data.text import SPLITS, TextConfig, load_text
from genserve.language.vocabulary import words_of

DICTIONARIES = ("wordnet",)  # corpora whose paragraphs are entries, "word, word: definition"


@dataclass(frozen=True, kw_only=True)
class CorporaConfig:
    """The texts that a run learns from.

    Args:
        texts: names of corpora, each whole; NAME:SPLIT takes its train, valid or test part alone.
            austen is shipped, wordnet and shakespeare come from ./scripts/prepare_text, `files` are your own.
        root: folder of the corpora, if they are not in their usual places; for `files` a text file in UTF-8,
            or a folder of *.txt.

    Raises:
        ValueError: there is no text, or one has an unknown name or split.
    """

    texts: tuple[str, ...] = ("austen:train", "shakespeare", "wordnet")
    root: str | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("data.texts must name at least one corpus")
        for text in self.texts:
            name, _, split = text.partition(":")
            TextConfig(name=name, root=self.root)
            if split not in ("", "all", *SPLITS):
                known = ", ".join(SPLITS)
                raise ValueError(f"data.texts must be NAME or NAME:SPLIT with one of {known}, got {text!r}")
        if len(set(self.texts)) < len(self.texts):
            raise ValueError(f"data.texts names a corpus twice: {', '.join(self.texts)}")


class Entry(NamedTuple):
    """An entry of a dictionary."""

    headwords: tuple[str, ...]  # that mean the same; phrases are left out
    definition: tuple[str, ...]  # its words, without the examples


class Corpora(NamedTuple):
    """Texts as words."""

    text: str  # all of it, a paragraph per line
    entries: tuple[Entry, ...]  # of the dictionaries among them

    def paragraphs(self) -> Iterator[list[str]]:
        """Yield the words of each paragraph."""
        return map(words_of, self.text.splitlines())


def load_corpora(config: CorporaConfig) -> Corpora:
    """Return the texts in the order of their names; raises as `load_text`."""
    parts: list[str] = []
    entries: list[Entry] = []
    for text in config.texts:
        name, _, split = text.partition(":")
        parts.append(load_text(TextConfig(name=name, root=config.root), split or "all"))
        if name in DICTIONARIES:
            entries += map(entry_of, parts[-1].splitlines())
    return Corpora("".join(parts), tuple(entries))


def entry_of(line: str) -> Entry:
    """Return the entry in a line: headwords and commas, a colon, the definition, examples in quotes."""
    heads, _, rest = line.partition(":")
    headwords = [words_of(head) for head in heads.split(",")]
    definition = words_of(rest.partition('"')[0])
    return Entry(tuple(words[0] for words in headwords if len(words) == 1), tuple(definition))
