"""Learn vectors of words from counts of a text: which words stand near each other, and define each other.

    python training/train_words.py --config training/configs/words-open.yaml
    python training/train_words.py --data.texts '[files]' --data.root my.txt --min-count 2      # your own
    text

Nothing is learnt by descent: the vectors are the best approximation of a matrix of mutual information, found
in a few passes over it. Beside the weights the program writes words.txt and samples.txt, the neighbours of
some words. Run it again after a kill and it goes on where it was; docs/training.md says what may change then.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from genserve import files
from genserve.cli import configure
from genserve.data.corpora import Corpora, CorporaConfig, load_corpora
from genserve.language.vectors import nearest
from genserve.language.vocabulary import Vocabulary
from genserve.learning.checkpoint import Checkpoint, held
from genserve.learning.config import check
from genserve.models.cooccurrence import (
    NO_WORD,
    Subspace,
    cooccurrences,
    definitions,
    joined,
    ppmi,
    retrofitted,
)
from genserve.models.words import WordsConfig, WordVectors, fixed

SHOWN = (
    "king", "woman", "house", "bread", "river", "money", "doctor", "music", "war", "love", "red", "big",
    "happy", "quickly", "run", "monday",
)  # fmt: skip
EXTRA = 10  # columns of the subspace beyond those of the vectors, with which it turns faster


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; saved in config.json beside the weights.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        data: the texts.
        n_words: largest size of the vocabulary; the most frequent words are taken.
        min_count: a rarer word is not taken.
        window: farthest distance of two words that count as near; at distance d they count 1 / d.
        definitions: what a word of a dictionary's definition counts beside each word that it defines.
        shift: mutual information below its logarithm is dropped.
        smoothing: exponent of the frequencies of contexts, which makes rare ones less surprising.
        dim: length of a vector.
        power: of the singular values in the vectors: 0 counts all directions alike.
        retrofit: weight of a word's own vector against the mean of its synonyms in a dictionary; 0 for none.
        epochs: passes over the matrix.
        seed: of the start of the search.
        tensorboard: also write TensorBoard files.
        threads: CPU threads; 0 is torch's own choice.
    """

    name: str = "words"
    output: str = "runs"
    data: CorporaConfig = field(default_factory=CorporaConfig)
    n_words: int = 30_000
    min_count: int = 4
    window: int = 8
    definitions: float = 2.0
    shift: float = 1.0
    smoothing: float = 0.75
    dim: int = 150
    power: float = 0.25
    retrofit: float = 1.0
    epochs: int = 4
    seed: int = 0
    tensorboard: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        check(self)
        for name in ("n_words", "min_count", "window", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("definitions", "power", "retrofit"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("shift", "smoothing"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


def vocabulary_of(corpora: Corpora, config: TrainConfig) -> Vocabulary:
    """Return the most frequent words of the texts; of equal counts, the one that comes first in them.

    Raises:
        ValueError: as `large_enough`.
    """
    counts = Counter(word for paragraph in corpora.paragraphs() for word in paragraph)
    words = [word for word, count in counts.most_common(config.n_words) if count >= config.min_count]
    return large_enough(words, config)


def large_enough(words: Sequence[str], config: TrainConfig) -> Vocabulary:
    """Return words as a vocabulary.

    Raises:
        ValueError: they are fewer than the vectors would have numbers.
    """
    if len(words) < config.dim:
        raise ValueError(
            f"dim {config.dim} needs as many words; {len(words)} stand {config.min_count} times or more "
            "in the text, beside others: give a smaller --dim or --min-count, or more text"
        )
    return Vocabulary(words)


def information_of(corpora: Corpora, config: TrainConfig) -> tuple[Vocabulary, Tensor]:
    """Return the vocabulary, and the mutual information of its words, (V, V) sparse.

    A word that stands beside no other more often than by chance is left out: nothing is known of it.

    Raises:
        ValueError: the text is too short for these settings.
    """
    vocabulary = vocabulary_of(corpora, config)
    while True:
        matrix = ppmi(counts_of(corpora, vocabulary, config), config.shift, config.smoothing)
        known = torch.bincount(matrix.indices()[0], minlength=len(vocabulary)) > 0
        if known.all():
            return vocabulary, matrix
        words = [word for word, kept in zip(vocabulary.words, known.tolist(), strict=True) if kept]
        vocabulary = large_enough(words, config)


def counts_of(corpora: Corpora, vocabulary: Vocabulary, config: TrainConfig) -> Tensor:
    """Return how often words stand near each other or define each other, (V, V) sparse float64."""
    index, n_words = vocabulary.index, len(vocabulary)
    rows = [[index.get(word, NO_WORD) for word in paragraph] for paragraph in corpora.paragraphs()]
    counts = cooccurrences(joined(rows, config.window), n_words, config.window)
    pairs = [
        (index[head], index[word])
        for entry in corpora.entries
        for head, word in product(entry.headwords, entry.definition)
        if head in index and word in index
    ]
    if pairs and config.definitions:
        counts = counts + definitions(torch.tensor(pairs).T, n_words) * config.definitions
    return counts.coalesce()


def synonyms_of(corpora: Corpora, vocabulary: Vocabulary) -> Tensor:
    """Return the pairs of words that an entry of a dictionary defines together, (2, N), in both orders."""
    index = vocabulary.index
    pairs = {
        pair
        for entry in corpora.entries
        for pair in permutations({index[word] for word in entry.headwords if word in index}, 2)
    }
    return torch.tensor(sorted(pairs), dtype=torch.long).reshape(-1, 2).T


def samples(vectors: WordVectors, vocabulary: Vocabulary, n: int = 8) -> str:
    """Return the nearest words of those in SHOWN, or else of the most frequent ones, a line each."""
    shown = [word for word in SHOWN if word in vocabulary.index] or vocabulary.words[: len(SHOWN)]
    places = torch.tensor([vocabulary.index[word] for word in shown])
    lines = []
    for word, place, scores in zip(shown, places.tolist(), vectors(vectors.rows(places)), strict=True):
        near = nearest(scores, n, dropped={place}.__contains__)
        lines.append(f"{word}: {', '.join(vocabulary.words[k] for k, _ in near)}\n")
    return "".join(lines)


# ---- the loop ----------------------------------------------------------------------------------------------


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last pass done."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with held(Path(config.output) / config.name):
        fit(config)


@torch.no_grad()
def fit(config: TrainConfig) -> None:
    """Count, and turn a subspace toward the strongest directions of the mutual information.

    Raises:
        ValueError: the text is too short for these settings.
    """
    corpora = load_corpora(config.data)
    vocabulary, matrix = information_of(corpora, config)
    columns = min(config.dim + EXTRA, len(vocabulary))
    subspace = Subspace(matrix, columns, config.seed)
    synonyms = synonyms_of(corpora, vocabulary)
    model = WordsConfig(family="words", n_words=len(vocabulary), dim=config.dim)
    vectors = model.build()
    checkpoint = Checkpoint(config, model, {"data": corpora.text}, first=True)
    start: int = checkpoint.resume(subspace, vectors, None, config.epochs).get("step", 0)
    files.update(checkpoint.directory / "words.txt", "".join(f"{w}\n" for w in vocabulary.words).encode())
    tqdm.write(
        f"{checkpoint.directory}: {len(corpora.text)} characters, {len(vocabulary)} words, "
        f"{matrix.values().numel() / 1e6:.2f} M pairs"
    )

    passes = range(start, config.epochs)
    bar = tqdm(passes, initial=start, total=config.epochs, unit="pass", dynamic_ncols=True)
    for step in bar:
        clock = time.process_time()
        subspace.step()
        factors = subspace.factors(config.dim)
        v = factors.left[:, : config.dim] * factors.strengths[: config.dim] ** config.power
        if config.retrofit and synonyms.numel():
            v = retrofitted(v / v.norm(dim=1, keepdim=True), synonyms, config.retrofit)
        vectors.vectors.copy_(fixed(v))
        loss = 1 - factors.explained.item()
        checkpoint.record(step + 1, loss=loss, cpu_seconds=round(time.process_time() - clock, 2))
        checkpoint.save(step + 1, subspace, vectors, None)
        files.write_atomic(checkpoint.directory / "samples.txt", samples(vectors, vocabulary).encode())
        bar.set_postfix_str(f"loss {loss:.4f}")


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
