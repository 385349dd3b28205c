"""A recurrent network that predicts the next token: gated recurrent units between tied embeddings.

What it knows of the text so far is a state of fixed size, so a step is a function of a token and a state, and
any texts, however long, share one evaluation.

Sources: Cho et al. 2014 (arXiv:1406.1078), the unit as torch has it; Press & Wolf 2017 (arXiv:1608.05859),
one matrix for embedding and output; Zaremba et al. 2014 (arXiv:1409.2329), dropout between layers only.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.families import FAMILIES, load
from genserve.language.queries import Likelihood, Prediction

# A step is evaluated in blocks of this many texts, because products of matrices round by the number of rows.
# 16 take as long as 8, since a core waits for the weights, but 32 take 1.4 times as long.
ROWS = 16


class RecurrentText(nn.Module):
    """tokens (B, T) int64 and state (B, layers, width) -> logits (B, T, n_tokens) and the state after them.

    The answer of every layer is added to that of the one below, so that depth costs little at the start.

    Args:
        n_tokens: size of the vocabulary.
        width: of embeddings and states.
        layers: recurrent layers.
        dropout: share of the activations hidden in training, between layers and around them.

    Raises:
        ValueError: a number below 1, or dropout outside [0, 1).
    """

    def __init__(self, n_tokens: int, *, width: int = 512, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        if min(n_tokens, width, layers) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"need n_tokens, width and layers of at least 1 and dropout in [0, 1), got {n_tokens}, "
                f"{width}, {layers} and {dropout}"
            )
        self.width, self.dropout, self.rows = width, dropout, ROWS
        self.embedding = nn.Embedding(n_tokens, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)  # for the output; inputs are scaled up
        self.bias = nn.Parameter(torch.zeros(n_tokens))
        self.layers = nn.ModuleList(nn.GRUCell(width, width) for _ in range(layers))

    @torch.jit.export
    def start(self, n: int) -> Tensor:
        """Return the state before any token, for n texts."""
        return torch.zeros(n, len(self.layers), self.width, device=self.bias.device)

    def forward(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = self._dropped(self.embedding(tokens) * math.sqrt(self.width))
        states = []
        for k, layer in enumerate(self.layers):
            weights: list[Tensor] = [layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]  # type: ignore[list-item]
            # what nn.GRU calls; a cell in a loop takes several times as long
            out, last = torch.gru(
                h, state[None, :, k].contiguous(), weights, True, 1, 0.0, False, False, True
            )
            h = self._dropped(out if k == 0 else h + out)
            states.append(last[0])
        return F.linear(h, self.embedding.weight, self.bias), torch.stack(states, dim=1)

    @torch.jit.export
    def step(self, token: Tensor, state: Tensor) -> Prediction:
        """Return the answer to a Step, each text with the bits that it has alone."""
        n = token.shape[0]
        spare = -n % self.rows
        tokens = F.pad(token, (0, spare)).split(self.rows)
        states = F.pad(state, (0, 0, 0, 0, 0, spare)).split(self.rows)
        logits: list[Tensor] = []
        after: list[Tensor] = []
        for k in range(len(tokens)):
            answer, last = self._block(tokens[k], states[k])
            logits.append(answer)
            after.append(last)
        return Prediction(torch.cat(logits)[:n], torch.cat(after)[:n])

    @torch.jit.export
    def score(self, tokens: Tensor, state: Tensor) -> Likelihood:
        """Return the answer to a Stretch, with the bits of as many steps."""
        log_p: list[Tensor] = []
        for k in range(tokens.shape[1] - 1):
            answer = self.step(tokens[:, k], state)
            state = answer.state
            log_p.append(F.log_softmax(answer.logits, 1).gather(1, tokens[:, k + 1 : k + 2]))
        return Likelihood(torch.cat(log_p, 1), state)

    def _block(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = self.embedding(token) * math.sqrt(self.width)
        states: list[Tensor] = []
        for k, layer in enumerate(self.layers):
            out = layer(h, state[:, k])
            states.append(out)
            h = out if k == 0 else h + out
        return F.linear(h, self.embedding.weight, self.bias), torch.stack(states, dim=1)

    def _dropped(self, h: Tensor) -> Tensor:
        return F.dropout(h, self.dropout, self.training)


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """The configuration of a language model; `model` in config.json."""

    family: str  # "text"
    network: str  # "recurrent" or "ngram"
    n_tokens: int  # of tokens.json beside it
    net: dict[str, Any]  # the arguments of the network

    def build(self) -> nn.Module:
        """Return the network, freshly initialised.

        Raises:
            ValueError: there is no such network.
        """
        networks = FAMILIES[self.family].networks
        if self.network not in networks:
            raise ValueError(f"network must be one of {', '.join(networks)}, got {self.network!r}")
        network: nn.Module = load(networks[self.network].build)(self)
        return network


def recurrent_of(model: TextModel) -> RecurrentText:
    """Return the network of a configuration, freshly initialised."""
    return RecurrentText(model.n_tokens, **model.net)


@torch.no_grad()
def nll(network: RecurrentText, tokens: Tensor, first: int, streams: int = 16) -> float:
    """Return the negative log-likelihood of a text in nats, summed over all its tokens.

    Args:
        tokens: (N,) int64.
        first: the token before the first one.
        streams: parts that are read side by side, each from a fresh state; 1 reads the text in one go.
    """
    n, length = len(tokens), math.ceil(len(tokens) / streams)
    padded = F.pad(torch.cat([tokens.new_tensor([first]), tokens]), (0, streams * length - n))
    inputs, targets = padded[:-1].view(streams, length), padded[1:].view(streams, length)
    counted = (torch.arange(streams * length, device=tokens.device) < n).view(streams, length)
    state, total = network.start(streams), 0.0
    for x, y, mask in zip(*(each.split(128, dim=1) for each in (inputs, targets, counted)), strict=True):
        logits, state = network(x, state)
        losses = F.cross_entropy(logits.float().transpose(1, 2), y, reduction="none")
        total += losses[mask].double().sum().item()
    return total
