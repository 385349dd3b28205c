"""The job of answering questions about words and sentences by their vectors."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genserve.language.vectors import (
    FEWEST_LETTERS,
    analogy,
    frequency_weights,
    nearest,
    odd_one_out,
    same_word,
    sentence,
)
from genserve.language.vocabulary import Reading
from genserve.runs.contracts.words import Comparison, Lookup, WordsSpec
from genserve.sampling.engine import Finished, Sampler
from genserve.serving.jobs.base import Job
from genserve.serving.replies import JSON, Reply

DIGITS = 6  # of numbers in an answer
NUMBER, LISTED = 3, 12  # of `size`: a number, and a word with its cosine, in JSON


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of the table.

    Args:
        summary: a line for help and docs.
        fewest, most: texts that it takes.
        compares: it compares a vector for each answer with all words.
    """

    summary: str
    fewest: int = 1
    most: int = 64
    compares: bool = False


TASKS = {
    "nearest": Task(summary="the words that are most like each text, and is usual", compares=True),
    "vector": Task(summary="the vector of each text"),
    "similarity": Task(summary="the cosine of each text with each", fewest=2),
    "analogy": Task(
        summary="of texts a, b and c: the words that are to c as b is to a",
        fewest=3,
        most=3,
        compares=True,
    ),
    "odd": Task(summary="which of the texts fits the others least", fewest=3),
}


class Meaning(Job):
    """An answer about texts.

    Args:
        texts: as the client wrote them.
        readings: the words of each, at least one of them known.
        top_k, distinct: of the nearest words: how many, and whether forms of words in the text are left out.
        facts: what the answer depends on, shown to the client.
    """

    def __init__(
        self,
        task: str,
        texts: Sequence[str],
        readings: Sequence[Reading],
        spec: WordsSpec,
        *,
        top_k: int,
        distinct: bool,
        facts: dict[str, Any],
    ) -> None:
        self.task, self.n = task, 1 if task == "analogy" else len(texts)
        self._texts, self._readings, self._spec = texts, readings, spec
        self._top_k, self._distinct, self._facts = top_k, distinct, facts

    @property
    def work(self) -> int:
        words = sum(len(reading.known) for reading in self._readings)
        return words + (self.n if TASKS[self.task].compares else 0)

    @property
    def size(self) -> int:
        numbers = {"vector": self._spec.dim, "similarity": self.n, "odd": 1}
        each = numbers[self.task] * NUMBER if self.task in numbers else self._top_k * LISTED
        return self.n * each + sum(map(len, self._texts))  # read back in two lists

    def begin(self, device: torch.device) -> Sampler:
        """Return a sampler that looks up all words and, for some tasks, compares with all words.

        Its result is a dictionary of the answer for each text.
        """
        places = torch.tensor([place for reading in self._readings for place in reading.known])
        rows = (yield Lookup(places.to(device))).cpu()
        sizes = [len(reading.known) for reading in self._readings]
        parts = zip(rows.split(sizes), places.split(sizes), strict=True)
        n_words = self._spec.n_words
        v = torch.stack([sentence(part, frequency_weights(those, n_words)) for part, those in parts])
        match self.task:
            case "vector":
                return [{"vector": _rounded(row)} for row in v]
            case "similarity":
                return [{"similarity": _rounded(row)} for row in (v @ v.T).clamp(-1, 1)]
            case "odd":
                fits = odd_one_out(v)
                odd = int(fits.argmin())
                return [{"fit": round(f, DIGITS), "odd": k == odd} for k, f in enumerate(fits.tolist())]
            case "analogy":
                v = analogy(*v)[None]
        scores = (yield Comparison(v.to(device))).cpu()
        if self.task == "analogy":
            return [{"nearest": self._nearest(scores[0], self._readings)}]
        return [
            {"nearest": self._nearest(row, [reading])}
            for row, reading in zip(scores, self._readings, strict=True)
        ]

    def answer(self, ended: Finished) -> Reply:
        answers = ended.result
        if self.task == "analogy":
            rows = [{"text": list(self._texts), **self._read(self._readings), **answers[0]}]
        else:
            rows = [
                {"text": text, **self._read([reading]), **one}
                for text, reading, one in zip(self._texts, self._readings, answers, strict=True)
            ]
        body = {"texts": rows, "nfe": 2 if TASKS[self.task].compares else 1, "settings": self._facts}
        return Reply(json.dumps(body).encode(), JSON)

    def __str__(self) -> str:
        return f"task={self.task} texts={len(self._texts)} settings={self._facts}"

    def _read(self, readings: Sequence[Reading]) -> dict[str, Any]:
        words = self._spec.words
        return {
            "words": [words[place] for reading in readings for place in reading.known],
            "unknown": [word for reading in readings for word in reading.unknown],
        }

    def _nearest(self, scores: Tensor, readings: Sequence[Reading]) -> list[dict[str, Any]]:
        """Return the best words, without those of the texts."""
        own = {place for reading in readings for place in reading.known}
        words = self._spec.words
        taken: defaultdict[str, list[str]] = defaultdict(list)  # by the letters that forms of a word share
        if self._distinct:
            for place in own:
                taken[words[place][:FEWEST_LETTERS]].append(words[place])

        def dropped(place: int) -> bool:
            if place in own:
                return True
            if self._distinct:
                alike = taken[words[place][:FEWEST_LETTERS]]
                if any(same_word(words[place], word) for word in alike):
                    return True
                alike.append(words[place])
            return False

        best = nearest(scores, self._top_k, dropped=dropped)
        return [{"word": words[place], "score": round(score, DIGITS)} for place, score in best]


def _rounded(row: Tensor) -> list[float]:
    return [round(value, DIGITS) for value in row.tolist()]
