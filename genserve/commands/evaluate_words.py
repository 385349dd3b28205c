"""Measure vectors of words against people's judgements, analogies and definitions.

    genserve evaluate-words --folder data/gensim                             the shipped vectors
    genserve evaluate-words --folder data/gensim --run weights/words-open

The folder has wordsim353.tsv, simlex999.txt and questions-words.txt, which the package gensim brings along in
gensim/test/test_data. Definitions are measured where WordNet's glosses are (./scripts/prepare_text). What was
measured is added to evaluations.jsonl of the run.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genserve.cli import config_of, plain_errors, typed_command
from genserve.data.corpora import CorporaConfig, load_corpora
from genserve.language.vocabulary import Vocabulary
from genserve.measure import records
from genserve.measure.words import agreement, analogies, defined, forms, read_questions, read_rated
from genserve.places import locate
from genserve.runs.directory import load_words, read_words

FREQUENT, FORMS = 10_000, 600  # of the most frequent words, this many are looked at with their neighbours
COLUMNS = {
    "name": records.Column("", "{}"),
    "value": records.Column("", "{:.3f}"),
    "known": records.Column("known", "{:.0f}"),
    "of": records.Column("of", "{:.0f}"),
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to measure.

    Args:
        folder: of the test sets.
        run: run directory of vectors of words.
        definitions: entries of WordNet to look up by their definition; 0 for none.
        threads: CPU threads; 0 is torch's own choice.
    """

    folder: Path
    run: Path = Path("weights/words-english")
    definitions: int = 3000
    threads: int = 0

    def __post_init__(self) -> None:
        if self.definitions < 0 or self.threads < 0:
            raise ValueError("definitions and threads must be at least 0")
        locate(self, "run")


@torch.no_grad()
def main(config: Evaluation, command: str) -> None:
    """Measure, print a table and record it."""
    if config.threads:
        torch.set_num_threads(config.threads)
    rated = {
        title: read_rated(config.folder / file)
        for title, file in (("WordSim-353", "wordsim353.tsv"), ("SimLex-999", "simlex999.txt"))
    }
    questions = read_questions(config.folder / "questions-words.txt")
    vectors, vocabulary = load_words(config.run), Vocabulary(read_words(config.run))
    rows: list[dict[str, Any]] = []
    for title, pairs in rated.items():
        result = agreement(vectors, vocabulary, pairs)
        rows.append({"name": f"{title}, Spearman's rho", "value": result.spearman})
        rows[-1] |= {"known": result.known, "of": result.pairs}
    for title, syntactic in (("meaning", False), ("form", True)):
        share = analogies(vectors, vocabulary, [q for q in questions if q.syntactic == syntactic])
        rows.append({"name": f"analogies of {title}, right", "value": share.accuracy})
        rows[-1] |= {"known": share.known, "of": share.questions}
    if config.definitions:
        entries = list(load_corpora(CorporaConfig(texts=("wordnet",))).entries)
        picked = random.Random(0).sample(entries, min(config.definitions, len(entries)))
        share = defined(vectors, vocabulary, picked, within=10)
        rows.append({"name": "word among the 10 nearest its definition", "value": share.accuracy})
        rows[-1] |= {"known": share.known, "of": share.questions}
    places = random.Random(0).sample(range(min(FREQUENT, len(vocabulary))), min(FORMS, len(vocabulary)))
    share = forms(vectors, vocabulary, places, n=min(10, len(vocabulary) - 1))
    rows.append({"name": "of the 10 nearest, forms of the word itself", "value": share.accuracy})
    rows[-1] |= {"known": share.known, "of": share.questions}
    print(records.table(rows, COLUMNS))
    weights = records.digest(config.run / "weights.safetensors")
    record = records.provenance(command) | {"weights": weights, "rows": rows}
    records.append(config.run / "evaluations.jsonl", record)


def command_line(argv: list[str]) -> Evaluation:
    """Return what the flags ask for; dashes and underscores are alike."""
    return config_of(Evaluation, __doc__, argv)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv), typed_command())
