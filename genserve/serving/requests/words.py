"""What a client may ask about words and sentences."""

from typing import Any

from genserve.language.vocabulary import Reading
from genserve.runs.contracts.words import WordsSpec
from genserve.serving.fields import BadRequest, echo, field
from genserve.serving.jobs.base import Job
from genserve.serving.jobs.words import TASKS, Meaning
from genserve.serving.limits import SAMPLES_MAX
from genserve.serving.requests.base import ALWAYS, Request
from genserve.serving.values import Count, Switch, Texts

LETTERS_MAX = 1000  # of one text
TOP_MAX = 1000
UNKNOWN_SHOWN = 3  # unknown words in an error

# What an answer in KServe's second protocol can consist of, n requests of k texts each.
OUTPUTS = {
    "vector": ("FP64", "[n, k, dim]", "of the task `vector`"),
    "similarity": ("FP64", "[n, k, k]", "of the task `similarity`"),
    "fit": ("FP64", "[n, k]", "of the task `odd`: mean cosine with the other texts"),
    "odd": ("BOOL", "[n, k]", "of the task `odd`: it fits least"),
    "nearest_word": ("BYTES", "[n, k, top_k]", "of the tasks `nearest` and `analogy`"),
    "nearest_score": ("FP64", "[n, k, top_k]", "its cosine"),
} | ALWAYS


class WordsRequest(Request):
    """One answer about words and sentences, or a description of the vectors."""

    outputs = OUTPUTS
    items = "texts"

    task: str = field(
        "nearest",
        "; ".join(f"`{name}`: {task.summary}" for name, task in TASKS.items())
        + "; `describe`: what the vectors are and how good",
        one_of=(*TASKS, "describe"),
    )
    text: Texts | None = field(
        None,
        "a word or a sentence, or a list of them; in a form or a query string a comma is between two of them",
        f"1 to {SAMPLES_MAX} texts of 1 to {LETTERS_MAX} characters",
        repr=False,  # a client's texts belong in no log
    )
    top_k: Count = field(10, "how many of the nearest words", ge=1, le=TOP_MAX)
    distinct: Switch = field(
        False,
        "of the nearest words: leave out those that begin like a word of the text or a better one, which are "
        "mostly its forms",
    )
    format: str = field("json", "an answer is JSON", one_of=("json",))

    def job(self, spec: WordsSpec, computed: dict[str, str]) -> Job | None:
        if self.task == "describe":
            self._only_task(self.task)
            return None
        task = TASKS[self.task]
        if not task.compares:
            self._refuse(f"{self.task} lists no nearest words", "top_k", "distinct")
        texts = [self.text] if isinstance(self.text, str) else self.text or []
        if not task.fewest <= len(texts) <= task.most:
            those = f"{task.fewest}" if task.fewest == task.most else f"{task.fewest} to {task.most}"
            raise BadRequest("text", f"{len(texts)} texts for {self.task}", f"{those} texts")
        readings = [self._reading(text, k, spec) for k, text in enumerate(texts)]
        facts: dict[str, Any] = {"model": spec.name, "weights": spec.weights, **computed}
        if task.compares:
            facts |= {"top_k": self.top_k, "distinct": self.distinct}
        return Meaning(
            self.task, texts, readings, spec, top_k=self.top_k, distinct=self.distinct, facts=facts
        )

    def _reading(self, text: str, number: int, spec: WordsSpec) -> Reading:
        """Return the words of a text.

        Raises:
            BadRequest: it is empty or long, or no word of it is known.
        """
        if not 1 <= len(text) <= LETTERS_MAX:
            raise BadRequest("text", f"text {number}: {len(text)} characters", f"1 to {LETTERS_MAX}")
        reading = spec.vocabulary.read(text)
        if not reading.known:
            unknown = reading.unknown[:UNKNOWN_SHOWN]
            near = [word for one in unknown for word in spec.vocabulary.suggestions(one)]
            shown = ", ".join(map(echo, unknown)) or echo(text)
            allowed = f"words of the vocabulary{', such as ' if near else ''}{', '.join(near)}"
            raise BadRequest("text", f"text {number}: no word of it is known ({shown})", allowed)
        return reading
