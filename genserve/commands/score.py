"""Measure how well language models predict held-out text: `genserve score`.

    genserve score                                  the shipped models, on the test text
    genserve score --runs runs/mine --split valid   one's own, while settings are still chosen

Each model reads the text in one go and is charged for every token of it. An n-gram model is measured at every
order that it has. The columns:

    bits/char    bits per character of the text as it is, if the model's tokens spell every text
    ppl          perplexity per token
    word ppl     perplexity per word, number or run of marks, whatever the model's tokens are
    unknown      share of tokens that are words outside the vocabulary; their spelling is not charged

A line with the command and the revision of the code goes into evaluations.jsonl of the run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genserve.cli import config_of, plain_errors, typed_command
from genserve.data.text import TextConfig, load_text
from genserve.language.tokens import read_tokens
from genserve.measure.likelihood import fit_of
from genserve.measure.records import Column, append, digest, provenance, table
from genserve.models.ngram import NGramText
from genserve.places import located
from genserve.runs.directory import load_model, trained_with

COLUMNS = {
    "name": Column("", "{}"),
    "bits_per_character": Column("bits/char", "{:.4f}"),
    "perplexity": Column("ppl", "{:.1f}"),
    "word_perplexity": Column("word ppl", "{:.1f}"),
    "unknown": Column("unknown", "{:.4f}"),
}


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What to measure.

    Args:
        runs: run directories of language models.
        split: test, or valid while settings are still chosen.
        root: folder of the corpus, if it is not where the run has read it.
        record: add a line to evaluations.jsonl of each run.
        threads: CPU threads; 0 is torch's own choice.
    """

    runs: tuple[str, ...] = ("weights/text-austen", "weights/ngram-austen")
    split: str = "test"
    root: str | None = None
    record: bool = True
    threads: int = 0

    def __post_init__(self) -> None:
        if self.split not in ("test", "valid"):
            raise ValueError(f"split must be test or valid, got {self.split!r}")


def run(argv: list[str]) -> None:
    """Measure as the command line says, and print a table."""
    with plain_errors():
        main(config_of(Scoring, __doc__, argv, lists={"runs": (str, "run directories of language models")}))


def main(config: Scoring) -> None:
    """Measure every run.

    Raises:
        ValueError, OSError: a run or its text cannot be read, or is of another family.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    rows = []
    for name in config.runs:
        directory = located(name)
        measured = scored(directory, config)
        if config.record:
            facts = {"weights": digest(directory / "weights.safetensors"), "split": config.split}
            append(directory / "evaluations.jsonl", provenance(typed_command()) | facts | {"rows": measured})
        rows += measured
    print(table(rows, COLUMNS))


def scored(directory: Path, config: Scoring) -> list[dict[str, Any]]:
    """Return a row for a run; for an n-gram model, one for each order."""
    network, tokens = load_model(directory), read_tokens(directory)
    data = trained_with(directory, "data")
    text = load_text(TextConfig(name=data["name"], root=config.root or data["root"]), config.split)
    orders = range(1, network.order + 1) if isinstance(network, NGramText) else [0]
    rows = []
    for order in orders:
        fit = fit_of(network, tokens, text, order)
        row: dict[str, Any] = {"name": f"{directory.name}{f', order {order}' if order else ''}"}
        if tokens.hidden:
            row["unknown"] = fit.unknown / fit.tokens
        else:
            row["bits_per_character"] = fit.bits_per_character
        row |= {"perplexity": fit.perplexity, "word_perplexity": fit.word_perplexity}
        rows.append(row | {"tokens": fit.tokens, "characters": fit.characters, "words": fit.words})
    return rows
