"""Measure vectors of words: do they agree with people, and do they complete analogies and definitions?

The sets of people's answers are files of gensim's tests (gensim/test/test_data), in the formats of their
authors:

    wordsim353.tsv        Finkelstein et al. 2002: how related are two words?
    simlex999.txt         Hill et al. 2015: how similar are they?
    questions-words.txt   Mikolov et al. 2013: a is to b as c is to?
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genserve.data.corpora import Entry
from genserve.files import naming, parsing
from genserve.language.vectors import analogy, frequency_weights, nearest, same_word, sentence
from genserve.language.vocabulary import Vocabulary
from genserve.models.words import WordVectors

CHUNK = 256  # queries scored together


class Rated(NamedTuple):
    """Two words, and how alike people find them."""

    a: str
    b: str
    rating: float


class Question(NamedTuple):
    """a is to b as c is to `answer`."""

    section: str
    a: str
    b: str
    c: str
    answer: str

    @property
    def syntactic(self) -> bool:
        """Whether it asks for a form of a word; else it asks for a meaning."""
        return self.section.startswith("gram")


def read_rated(path: Path) -> list[Rated]:
    """Return the rows "word <tab> word <tab> rating" of a file; lines that begin with # are remarks.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is something else.
    """
    with parsing(path, "a table of words and ratings"):
        rows = [line.split("\t")[:3] for line in _lines(path) if not line.startswith("#")]
        return [Rated(a.lower(), b.lower(), float(rating)) for a, b, rating in rows]


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file, lines of four words below ": section"; raises as `read_rated`."""
    section, questions = "", []
    with parsing(path, "a list of analogies"):
        for line in _lines(path):
            if line.startswith(":"):
                section = line[1:].strip()
            else:
                a, b, c, answer = line.lower().split()
                questions.append(Question(section, a, b, c, answer))
    return questions


def _lines(path: Path) -> list[str]:
    with naming(path):
        data = path.read_bytes()
    return [line for line in data.decode().splitlines() if line.strip()]


def ranks(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the ranks of values from 1; equal values share the mean of theirs."""
    _, at, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    result: np.ndarray[tuple[int], np.dtype[np.float64]] = (last - (counts - 1) / 2)[at]
    return result


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the correlation of the ranks of two rows of numbers, -1 to 1.

    Source: Spearman 1904, "The proof and measurement of association between two things".
    """
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


class Agreement(NamedTuple):
    """How well cosines agree with people's ratings."""

    spearman: float  # over the pairs whose words are both known
    known: int
    pairs: int


def agreement(vectors: WordVectors, vocabulary: Vocabulary, rated: Sequence[Rated]) -> Agreement:
    """Return the agreement of cosines with ratings.

    Raises:
        ValueError: fewer than two pairs are known.
    """
    known = [row for row in rated if row.a in vocabulary.index and row.b in vocabulary.index]
    if len(known) < 2:
        raise ValueError(f"the vocabulary has {len(known)} of {len(rated)} rated pairs: too few to compare")
    a, b = (
        vectors.rows(torch.tensor([vocabulary.index[word] for word in words]))
        for words in ([row.a for row in known], [row.b for row in known])
    )
    cosines = (a.double() * b).sum(1)
    return Agreement(spearman(cosines.tolist(), [row.rating for row in known]), len(known), len(rated))


class Share(NamedTuple):
    """How many questions were answered rightly."""

    right: int
    known: int
    questions: int

    @property
    def accuracy(self) -> float:
        """The share of those whose words are all known."""
        return self.right / self.known if self.known else 0.0


def analogies(vectors: WordVectors, vocabulary: Vocabulary, questions: Sequence[Question]) -> Share:
    """Return how often the best word for b - a + c is the answer; words of the question do not count."""
    index = vocabulary.index
    known = [q for q in questions if all(word in index for word in q[1:])]
    right = 0
    for first in range(0, len(known), CHUNK):
        part = torch.tensor([[index[word] for word in q[1:]] for q in known[first : first + CHUNK]])
        a, b, c = (vectors.rows(part[:, k]) for k in range(3))
        scores = vectors(analogy(a, b, c)).scatter(1, part[:, :3], -2.0)
        right += int((scores.argmax(1) == part[:, 3]).sum())
    return Share(right, len(known), len(questions))


def defined(vectors: WordVectors, vocabulary: Vocabulary, entries: Iterable[Entry], within: int) -> Share:
    """Return how often a word that a sentence defines is among the nearest words of that sentence.

    Words of the sentence do not count, unless they are defined. An entry is known if it has a headword and
    four other words that the vocabulary has.
    """
    index, n = vocabulary.index, len(vocabulary)
    right = known = total = 0
    for entry in entries:
        total += 1
        heads = [index[word] for word in entry.headwords if word in index]
        words = torch.tensor([index[word] for word in entry.definition if word in index], dtype=torch.long)
        if not heads or len(words) < 4:
            continue
        known += 1
        scores = vectors(sentence(vectors.rows(words), frequency_weights(words, n)).unsqueeze(0))[0]
        best = scores[heads].max()
        right += int(_above(scores, words, heads, best) < within)
    return Share(right, known, total)


def forms(vectors: WordVectors, vocabulary: Vocabulary, places: Sequence[int], n: int) -> Share:
    """Return how many of the n nearest words of some words look like forms of the word itself."""
    right = 0
    for first in range(0, len(places), CHUNK):
        part = list(places[first : first + CHUNK])
        for place, scores in zip(part, vectors(vectors.rows(torch.tensor(part))), strict=True):
            near = nearest(scores, n, dropped={place}.__contains__)
            right += sum(same_word(vocabulary.words[place], vocabulary.words[k]) for k, _ in near)
    return Share(right, n * len(places), n * len(places))


def _above(scores: Tensor, words: Tensor, heads: Sequence[int], best: Tensor) -> int:
    """Return how many words score higher than the best headword, without those of the sentence."""
    scores = scores.scatter(0, words, -2.0)
    scores[list(heads)] = -2.0
    return int((scores > best).sum())
