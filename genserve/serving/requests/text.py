"""What a client may ask of a language model."""

import secrets
from typing import Any, Literal

from genserve.language.rules import Rules
from genserve.runs.contracts.text import TextSpec
from genserve.sampling.noise import SEED_MAX
from genserve.serving.fields import BadRequest, field
from genserve.serving.jobs.base import Job
from genserve.serving.jobs.texts import EVENTS, LINES, Scoring, Wish, Writing
from genserve.serving.limits import SAMPLES_MAX
from genserve.serving.requests.base import ALWAYS, Request
from genserve.serving.values import Count, Plain, Real, Stops, Switch, Telling

PROMPT_MAX = 2000  # characters
TEXT_MAX = 10_000  # characters of a text to be scored
SCORED_MAX = 4096  # tokens of it, which are read one after the other
LENGTH, LENGTH_MAX = 100, 1000  # tokens
STOPS_MAX, STOP_LENGTH = 8, 100  # strings, and characters of one
ALTERNATIVES_MAX = 20
OUTPUTS = {
    "text": ("BYTES", "[n, k]", "what was written"),
    "index": ("INT64", "[n, k]", "of each text"),
    "seed": ("INT64", "[n]", "of each request"),
    "ended_by": ("BYTES", "[n, k]", "`length` or `stop`"),
    "n_tokens": ("INT64", "[n, k]", "of each text"),
    "log_p": ("FP64", "[n, k]", "natural logarithm of its probability by the model itself"),
    "perplexity": ("FP64", "[n, k]", "of the task `score`: of a token"),
    "bits_per_character": ("FP64", "[n, k]", "of the task `score`, by a model of byte pairs"),
    "characters": ("INT64", "[n, k]", "of the task `score`"),
    "unknown": ("INT64", "[n, k]", "of the task `score`: tokens that are unknown words"),
    "file": ("BYTES", "[n]", "the answer in base64, with `format` text"),
} | ALWAYS


class TextRequest(Request):
    """One answer of a language model: texts that it writes, or how likely a text is."""

    outputs = OUTPUTS
    items = "texts"
    work_max = 2**17  # tokens

    task: Literal["write", "score", "describe"] | None = field(
        None,
        "`write` goes on from a prompt, and is usual; `score` says how likely `text` is, and is usual with "
        "one; `describe` what the model is",
        "write, score, describe",
    )
    prompt: Plain | None = field(
        None, "what the texts go on from; nothing if not given", f"up to {PROMPT_MAX} characters", repr=False
    )
    text: Plain | None = field(
        None, "of `score`: the text", f"1 to {TEXT_MAX} characters, up to {SCORED_MAX} tokens", repr=False
    )
    num_samples: Count = field(1, "texts in this answer", ge=1, le=SAMPLES_MAX)
    seed: Count | None = field(
        None, "drawn if not given, and returned; the same seed gives the same texts", ge=0, le=SEED_MAX
    )
    first_index: Count = field(
        0,
        "number of the first text: text k of a seed is the same whichever request writes it",
        ge=0,
        le=2**53,
    )
    length: Count = field(LENGTH, "most tokens of each text", ge=1, le=LENGTH_MAX)
    temperature: Real | None = field(
        None,
        "below 1 likelier tokens get likelier, 0 takes the likeliest; the model's own if not given",
        ge=0,
        le=10,
    )
    top_k: Count | None = field(None, "only the k likeliest tokens; 0 is all", ge=0, le=1_000_000)
    top_p: Real | None = field(
        None,
        "only the fewest tokens that are this likely together; the model's own if not given",
        "above 0 to 1",
        gt=0,
        le=1,
    )
    stop: Stops | None = field(
        None,
        "a string, or in JSON a list of them: a text ends before the first that comes",
        f"1 to {STOPS_MAX} strings of 1 to {STOP_LENGTH} characters",
    )
    order: Count | None = field(
        None, "of an n-gram model: how many tokens in a row it looks at; its most if not given", ge=1, le=16
    )
    log_probabilities: Switch = field(
        False, "list every token with its natural logarithm of probability, by the model itself"
    )
    alternatives: Count = field(
        0,
        "with `log_probabilities`: how many of the likeliest tokens in each place",
        ge=0,
        le=ALTERNATIVES_MAX,
    )
    stream: Telling = field(
        False,
        "each token as soon as it is drawn: `jsonl` a line of JSON each, `true` or `sse` server-sent events; "
        "the last one has everything",
    )
    format: str = field(
        "json", "`text` is prompt and text as plain text, one after the other", one_of=("json", "text")
    )

    def job(self, spec: TextSpec, computed: dict[str, str]) -> Job | None:
        name = self.task or ("write" if self.text is None else "score")
        if name == "describe":
            self._only_task(name)
            return None
        if self.order is not None and not 1 <= self.order <= spec.orders:
            allowed = f"1 to {spec.orders}" if spec.orders else "leave it out: this is no n-gram model"
            raise BadRequest("order", f"this model has no order {self.order}", allowed)
        if self.alternatives and not self.log_probabilities:
            raise BadRequest("alternatives", "no token is listed", "with log_probabilities")
        facts: dict[str, Any] = {"model": spec.name, "weights": spec.weights, **computed}
        if spec.orders:
            facts["order"] = self.order or spec.orders
        return self._score(spec, facts) if name == "score" else self._write(spec, facts)

    def _score(self, spec: TextSpec, facts: dict[str, Any]) -> Job:
        drawn = ("prompt", "num_samples", "seed", "first_index", "length", "temperature", "top_k", "top_p")
        self._refuse("score draws nothing", *drawn, "stop", "stream")
        if self.format != "json":
            raise BadRequest("format", "a score is numbers", "json")
        if not 1 <= len(self.text or "") <= TEXT_MAX:
            raise BadRequest("text", f"{len(self.text or '')} characters", f"1 to {TEXT_MAX}")
        job = Scoring(self.text or "", spec, self.order, self.log_probabilities, self.alternatives, facts)
        if not job.work:
            raise BadRequest("text", "no token of this model is in it", "text with words")
        if job.work > SCORED_MAX:
            raise BadRequest("text", f"{job.work} tokens", f"at most {SCORED_MAX}: a shorter text")
        self._check(job)
        return job

    def _write(self, spec: TextSpec, facts: dict[str, Any]) -> Job:
        self._refuse("write goes on from a prompt", "text")
        if len(self.prompt or "") > PROMPT_MAX:
            raise BadRequest("prompt", f"{len(self.prompt or '')} characters", f"up to {PROMPT_MAX}")
        if self.format == "text" and (self.stream or self.log_probabilities):
            raise BadRequest("format", "plain text is neither streamed nor a list of tokens", "json")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if self.stop == [] or len(stop) > STOPS_MAX or not all(1 <= len(one) <= STOP_LENGTH for one in stop):
            allowed = f"1 to {STOPS_MAX} strings of 1 to {STOP_LENGTH} characters"
            raise BadRequest("stop", "none or too many strings, or an empty or long one", allowed)
        rules = Rules(
            temperature=spec.temperature if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=spec.top_p if self.top_p is None else self.top_p,
        )
        facts |= {"length": self.length, "temperature": rules.temperature}
        facts |= {"top_k": rules.top_k, "top_p": rules.top_p, "stop": list(stop)}
        wish = Wish(
            prompt=self.prompt or "",
            n=self.num_samples,
            seed=secrets.randbelow(2**53) if self.seed is None else self.seed,
            first_index=self.first_index,
            length=self.length,
            rules=rules,
            stop=stop,
            order=self.order,
            shown=self.log_probabilities,
            alternatives=self.alternatives,
            format=self.format,
            facts=facts,
        )
        job = Writing(wish, spec, {False: "", "jsonl": LINES}.get(self.stream, EVENTS))
        self._check(job)
        return job

    def _check(self, job: Job) -> None:
        """Refuse what would hold up everybody else, or is too large to send."""
        if job.work > self.work_max:
            fewer = "fewer samples, a shorter length or a shorter prompt"
            raise BadRequest(
                "length", f"{job.work} tokens are read or written", f"at most {self.work_max}: {fewer}"
            )
        if job.size > self.size_max:
            message = f"the answer would have about {4 * job.size} characters"
            raise BadRequest("alternatives", message, f"at most {4 * self.size_max}: fewer, or shorter texts")
