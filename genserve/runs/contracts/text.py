"""model.json of a language model."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from genserve.language.queries import Step
from genserve.language.tokens import KINDS, Tokens
from genserve.runs.contract import Contract, Device

SHOWN = 10  # tokens in a description


@dataclass(frozen=True, kw_only=True)
class TextSpec(Contract):
    """The contract of a language model.

    The state before any token is `initial`, of the shape `state`, or zeros of that shape if it is empty.
    """

    network: str
    n_tokens: int
    kind_of_tokens: str  # a key of KINDS
    tokens: tuple[str, ...]
    state: tuple[int, ...]  # the shape of one text's state
    initial: tuple[int, ...] = ()
    orders: int = (
        0  # most tokens in a row that are counted, of which a state begins with the wanted number; or 0
    )
    temperature: float = 1.0  # defaults of a request
    top_p: float = 1.0

    @cached_property
    def vocabulary(self) -> Tokens:
        """The tokens, and how text is made of them."""
        return KINDS[self.kind_of_tokens](self.tokens)

    def start(self, order: int | None = None) -> Tensor:
        """Return the state of one text before any token, (1, ...).

        Args:
            order: 1 to `orders`; None for the highest.
        """
        if not self.initial:
            return torch.zeros(1, *self.state)
        start = torch.tensor(self.initial).view(1, *self.state)
        if order is not None:
            start[:, 0] = order
        return start

    def examples(self, n: int, device: Device) -> list[Any]:
        state = self.start().to(device)
        token = torch.full((n,), self.vocabulary.first, device=device)
        return [Step(token, state.expand(n, *state.shape[1:]).contiguous())]

    def described(self) -> dict[str, Any]:
        return super().described() | {"tokens": self.tokens[:SHOWN], "initial": self.initial[:SHOWN]}
