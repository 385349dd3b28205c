"""Write text with a language model: a generator that yields steps, is sent predictions, returns the text.

As the samplers of pictures do (genserve.sampling.samplers), it never calls a model: a loop over one text and
an engine over many drive it alike.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genserve.language.queries import Prediction, Step
from genserve.language.rules import Row, Rules, draw, log_probabilities, probabilities
from genserve.language.stops import Stops
from genserve.language.tokens import Tokens, prompted


class Written(NamedTuple):
    """A token that was drawn."""

    token: int
    text: str  # what may be shown since the last one
    log_p: Row  # (n_tokens,), logarithms of the model's own probabilities, before the rules


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text at its end."""

    text: str  # without the prompt and without a stop string
    ids: tuple[int, ...]  # the tokens that were drawn
    log_p: tuple[float, ...]  # of each of them, in nats, by the model itself
    stopped: str  # the stop string that ended it, "" if its length did


See = Callable[[Written], None]
Writer = Generator[Step, Prediction, Text]


def write(
    tokens: Tokens,
    start: Tensor,
    prompt: str,
    *,
    length: int,
    rules: Rules,
    uniforms: Iterator[float],
    stop: Sequence[str] = (),
    see: See | None = None,
    read: Prediction | None = None,
) -> Writer:
    """Continue a prompt.

    Args:
        tokens: the vocabulary of the model.
        start: (1, ...), the state before any token.
        length: tokens to write, at least 1.
        rules: how each is chosen.
        uniforms: token k is chosen by number k.
        stop: strings before which the text ends.
        see: gets each token as soon as it is drawn.
        read: the answer to the prompt, if it is known; several texts go on from one.

    Raises:
        ValueError: at the first step, if length is below 1 or a stop string is empty.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1 token, got {length}")
    ids, blank = prompted(tokens, prompt)
    stops, speller = Stops(stop), tokens.speller(prompt)
    answer = read or (yield from prompt_read(tokens, start, ids))
    parts: list[str] = []
    drawn: list[int] = []
    log_p: list[float] = []
    while True:
        first = not drawn
        logits = answer.logits[0].numpy().astype(np.float64)
        own = log_probabilities(logits)
        logits[list(tokens.hidden)] = -np.inf
        if first and blank and np.isfinite(logits[with_blank := tokens.blanks(prompt)]).any():
            logits[~with_blank] = -np.inf  # unless what the prompt ends in never has a blank behind it
        token = draw(probabilities(logits, rules), next(uniforms))
        drawn.append(token)
        log_p.append(float(own[token]))
        added = speller.add(token)
        # a word's tokens know that the prompt ends in a blank, a byte pair brings its own
        added = added.removeprefix(" ") if first and blank else added
        parts.append(stops.add(added))
        ends = bool(stops.stopped) or len(drawn) == length
        if ends and not stops.stopped:
            parts[-1] += stops.add(speller.close()) + stops.close()
        if see is not None:
            see(Written(token, parts[-1], own))
        if ends:
            return Text(text="".join(parts), ids=tuple(drawn), log_p=tuple(log_p), stopped=stops.stopped)
        answer = yield Step(torch.tensor([token]), answer.state)


def prompt_read(tokens: Tokens, state: Tensor, ids: Sequence[int]) -> Generator[Step, Prediction, Prediction]:
    """Read the tokens of a text, one per step, and return the last prediction.

    Args:
        state: (1, ...), the state before any token, on the device of the model.
    """
    answer = yield Step(torch.tensor([tokens.first], device=state.device), state)
    for token in ids:
        answer = yield Step(torch.tensor([token], device=state.device), answer.state)
    return answer


@torch.no_grad()
def drive(writer: Writer, model: Callable[[Tensor, Tensor], Prediction]) -> Text:
    """Drive one writer to its end and return its text."""
    step = next(writer)
    while True:
        try:
            step = writer.send(model(*step))
        except StopIteration as end:
            text: Text = end.value
            return text
