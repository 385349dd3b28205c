"""The jobs of writing texts and of saying how likely a text is, token by token."""

import json
import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from genserve.language.queries import Prediction, Step
from genserve.language.rules import Rules, log_probabilities
from genserve.language.sampler import Text, Writer, Written, prompt_read, write
from genserve.language.tokens import Tokens, prompted
from genserve.runs.contracts.text import TextSpec
from genserve.sampling.engine import Finished, Sampler
from genserve.sampling.noise import uniforms
from genserve.serving.jobs.base import Job, Streaming
from genserve.serving.replies import JSON, Reply

DIGITS = 5  # of logarithms in an answer
LISTED = 12  # of `size`: a token with its logarithm, in JSON
LINES, EVENTS = "application/jsonl", "text/event-stream"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a client wants to be written.

    Args:
        n: texts.
        first_index: number of the first, which with the seed names its random numbers.
        length: most tokens of each.
        stop: strings before which a text ends.
        order: of an n-gram model; None for its highest.
        shown: whether each token is listed; and how many others beside it.
    """

    prompt: str
    n: int
    seed: int
    first_index: int
    length: int
    rules: Rules
    stop: tuple[str, ...]
    order: int | None
    shown: bool
    alternatives: int
    format: str
    facts: dict[str, Any]


class Writing(Job):
    """Texts that go on from a prompt.

    Args:
        stream: the content type of a stream; "" for none.
    """

    task = "write"

    def __init__(self, wish: Wish, spec: TextSpec, stream: str) -> None:
        self._wish, self._spec, self.n = wish, spec, wish.n
        self._prompt = prompted(spec.vocabulary, wish.prompt).ids
        self._listed: list[list[dict[str, Any]]] = [[] for _ in range(wish.n)]
        if stream:
            self.stream = TokenStream(stream, wish.seed)

    @property
    def work(self) -> int:
        return 1 + len(self._prompt) + self.n * (self._wish.length - 1)

    @property
    def size(self) -> int:
        token = 1 + self._wish.shown * LISTED * (1 + self._wish.alternatives)
        return self.n * self._wish.length * token

    def begin(self, device: torch.device) -> Sampler:
        """Return a sampler that reads the prompt once and then writes all texts, which are its result."""
        return self._written(device)

    def _written(self, device: torch.device) -> Sampler:
        wish, spec = self._wish, self._spec
        start = spec.start(wish.order).to(device)
        answer = yield from prompt_read(spec.vocabulary, start, self._prompt)
        read = Prediction(answer.logits.cpu(), answer.state)
        writers = [
            write(
                spec.vocabulary,
                start,
                wish.prompt,
                length=wish.length,
                rules=wish.rules,
                uniforms=uniforms(wish.seed, wish.first_index + k),
                stop=wish.stop,
                see=lambda written, k=k: self._see(k, written),  # type: ignore[misc]
                read=read,
            )
            for k in range(wish.n)
        ]
        return (yield from together(writers, device))

    def _see(self, k: int, written: Written) -> None:
        entry: dict[str, Any] = {"text": written.text}
        if self._wish.shown:
            entry |= listed(self._spec.vocabulary, written.token, written.log_p, self._wish.alternatives)
            self._listed[k].append(entry)
        if isinstance(self.stream, TokenStream):
            self.stream.add({"index": self._wish.first_index + k, **entry})

    def answer(self, ended: Finished) -> Reply:
        wish, texts = self._wish, ended.result
        headers = {"X-Seed": str(wish.seed)}
        if wish.format == "text":
            body = "\n".join(wish.prompt + text.text for text in texts) + "\n"
            return Reply(body.encode(errors="replace"), "text/plain; charset=utf-8", headers=headers)
        rows = [
            {
                "index": wish.first_index + k,
                "seed": wish.seed,
                "text": text.text,
                "ended_by": "stop" if text.stopped else "length",
                "stop": text.stopped,
                "n_tokens": len(text.ids),
                "log_p": round(sum(text.log_p), DIGITS),
                **({"tokens": self._listed[k]} if wish.shown else {}),
            }
            for k, text in enumerate(texts)
        ]
        body_of = {"texts": rows, "seed": wish.seed, "nfe": math.ceil(ended.evaluated / self.n)}
        return Reply(json.dumps(body_of | {"settings": wish.facts}).encode(), JSON, headers=headers)

    def __str__(self) -> str:
        return f"task={self.task} seed={self._wish.seed} settings={self._wish.facts}"


class TokenStream(Streaming):
    """Tokens as they are drawn: lines of JSON, or server-sent events that end in [DONE].

    Source of the form of events: the HTML standard, "Server-sent events"; the last one is what clients of
    language models expect.
    """

    def __init__(self, content_type: str, seed: int) -> None:
        self.content_type = content_type
        self.headers = {"X-Seed": str(seed), "X-Accel-Buffering": "no", "Cache-Control": "no-cache"}
        self._fresh: deque[dict[str, Any]] = deque()  # filled by a lane, emptied by the host's thread
        self._begun = False

    def add(self, entry: dict[str, Any]) -> None:
        """Take in a token."""
        self._fresh.append(entry)

    def more(self) -> bytes:
        self._begun = True
        return b"".join(self._part(self._fresh.popleft()) for _ in range(len(self._fresh)))

    def end(self, ended: Finished, reply: Reply) -> Reply:
        if reply.status != 200:
            return self.broken(reply)
        begun, rest = self._begun, self.more()
        rest += self._part(json.loads(reply.body) | {"done": True}) + self._done()
        return Reply(rest, self.content_type, headers=reply.headers, ends_stream=begun)

    def broken(self, reply: Reply) -> Reply:
        if not self._begun:
            return reply
        return Reply(self._part(json.loads(reply.body)) + self._done(), self.content_type, ends_stream=True)

    def _part(self, entry: dict[str, Any]) -> bytes:
        line = json.dumps(entry).encode()
        return b"data: " + line + b"\n\n" if self.content_type == EVENTS else line + b"\n"

    def _done(self) -> bytes:
        return b"data: [DONE]\n\n" if self.content_type == EVENTS else b""


class Scoring(Job):
    """How likely a text is."""

    task, n = "score", 1

    def __init__(
        self,
        text: str,
        spec: TextSpec,
        order: int | None,
        shown: bool,
        alternatives: int,
        facts: dict[str, Any],
    ) -> None:
        self._text, self._spec, self._order = text, spec, order
        self._shown, self._alternatives, self._facts = shown, alternatives, facts
        self._ids = spec.vocabulary.encode(text)

    @property
    def work(self) -> int:
        return len(self._ids)

    @property
    def size(self) -> int:
        return 1 + len(self._ids) * self._shown * LISTED * (1 + self._alternatives)

    def begin(self, device: torch.device) -> Sampler:
        """Return a sampler that reads the text, and whose result is an entry for each token."""
        return self._read(device)

    def _read(self, device: torch.device) -> Sampler:
        tokens, entries, total = self._spec.vocabulary, [], 0.0
        step = Step(torch.tensor([tokens.first], device=device), self._spec.start(self._order).to(device))
        for token in self._ids:
            answer = yield step
            log_p = log_probabilities(answer.logits[0].cpu().numpy())
            total += float(log_p[token])
            if self._shown:
                entries.append(listed(tokens, token, log_p, self._alternatives, spelled=True))
            step = Step(torch.tensor([token], device=device), answer.state)
        return total, entries

    def answer(self, ended: Finished) -> Reply:
        total, entries = ended.result
        n, letters = len(self._ids), len(self._text)
        hidden = set(self._spec.vocabulary.hidden)
        row: dict[str, Any] = {
            "characters": letters,
            "n_tokens": n,
            "unknown": sum(token in hidden for token in self._ids),
            "log_p": round(total, DIGITS),
            "perplexity": round(math.exp(min(-total / n, 700)), DIGITS),
            **({"tokens": entries} if self._shown else {}),
        }
        if not hidden:  # every character counts: words lose blanks, and what they do not know costs little
            row["bits_per_character"] = round(-total / math.log(2) / letters, DIGITS)
        body = {"texts": [row], "nfe": ended.evaluated, "settings": self._facts}
        return Reply(json.dumps(body).encode(), JSON)

    def __str__(self) -> str:
        return f"task={self.task} tokens={len(self._ids)} settings={self._facts}"


def together(writers: Sequence[Writer], device: torch.device) -> Generator[Step, Prediction, list[Text]]:
    """Drive several writers by common steps; one that ends leaves the others.

    Returns:
        Their texts, in their order.
    """
    texts: dict[int, Text] = {}
    steps: dict[int, Step] = {}
    for k, writer in enumerate(writers):
        try:
            steps[k] = next(writer)
        except StopIteration as end:
            texts[k] = end.value
    while steps:
        token = torch.cat([step.token for step in steps.values()]).to(device)
        answer = yield Step(token, torch.cat([step.state for step in steps.values()]).to(device))
        logits = answer.logits.cpu()
        for row, k in enumerate(list(steps)):
            part = Prediction(logits[row : row + 1], answer.state[row : row + 1])
            try:
                steps[k] = writers[k].send(part)
            except StopIteration as end:
                texts[k] = end.value
                del steps[k]
    return [texts[k] for k in range(len(writers))]


def listed(
    tokens: Tokens, token: int, log_p: Any, alternatives: int, spelled: bool = False
) -> dict[str, Any]:
    """Return what an answer says of a token.

    Args:
        log_p: (n_tokens,), natural logarithms of the model's own probabilities.
        alternatives: how many of the likeliest tokens are listed beside it.
        spelled: with the token as text; else the caller knows what it added.
    """
    entry: dict[str, Any] = {"text": tokens.decode([token])} if spelled else {}
    entry["log_p"] = round(float(log_p[token]), DIGITS)
    if alternatives:
        best = np.argsort(-log_p, kind="stable")[:alternatives].tolist()
        entry["alternatives"] = [
            {"text": tokens.decode([k]), "log_p": round(float(log_p[k]), DIGITS)} for k in best
        ]
    return entry
