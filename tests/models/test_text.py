"""The recurrent network: a step is the sequence's, a text keeps its bits in a crowd, no token is lost."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.models.text import ROWS, RecurrentText, TextModel, nll
from genserve.runs.loading import torchscript

V = 30


@pytest.fixture
def network() -> RecurrentText:
    torch.manual_seed(0)
    return RecurrentText(V, width=16, layers=2).eval().requires_grad_(False)


def tokens(*shape: int) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(1))


def test_it_is_the_gated_recurrent_unit_of_torch_with_the_layers_added(network: RecurrentText) -> None:
    x, state = tokens(3, 7), torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(2))
    h, out = network.embedding(x) * 4, torch.zeros(3, 7, 16)
    for k, cell in enumerate(network.layers):
        layer = nn.GRU(16, 16, batch_first=True)
        layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
        answer, last = layer(h, state[None, :, k].contiguous())
        out = h = out + answer
        torch.testing.assert_close(network(x, state)[1][:, k], last[0])
    torch.testing.assert_close(network(x, state)[0], out @ network.embedding.weight.T + network.bias)


def test_steps_are_the_sequence(network: RecurrentText) -> None:
    x, state = tokens(3, 9), network.start(3)
    logits, last = network(x, state)
    for k in range(9):
        answer = network.step(x[:, k], state)
        state = answer.state
        torch.testing.assert_close(answer.logits, logits[:, k])
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("n", [1, 2, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 5])
def test_a_text_has_the_bits_that_it_has_alone(n: int) -> None:
    """Of any number of texts, at any place; in the width that is served, whose products are blocked."""
    network = RecurrentText(300, width=512).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(n)
    x, state = torch.randint(300, (n,), generator=rng), torch.randn(n, 2, 512, generator=rng)
    together = network.step(x, state)
    for k in range(n):
        alone = network.step(x[k : k + 1], state[k : k + 1])
        assert alone.logits[0].equal(together.logits[k])
        assert alone.state[0].equal(together.state[k])


def test_a_stretch_is_its_steps_to_the_bit(network: RecurrentText) -> None:
    x = tokens(2, 6)
    answer, state = network.score(x, network.start(2)), network.start(2)
    for k in range(5):
        logits, state = network.step(x[:, k], state)
        expected = F.log_softmax(logits, 1).gather(1, x[:, k + 1 : k + 2])[:, 0]
        assert answer.log_p[:, k].equal(expected)
    assert answer.state.equal(state)


def test_the_exported_network_answers_as_the_python_one(network: RecurrentText) -> None:
    with torchscript():
        frozen = torch.jit.freeze(torch.jit.script(network), preserved_attrs=["step", "score"])
    x, state = tokens(5), network.start(5)
    for _ in range(3):
        assert frozen.step(x, state).logits.equal(network.step(x, state).logits)
    assert frozen.score(tokens(5, 4), state).log_p.equal(network.score(tokens(5, 4), state).log_p)


@pytest.mark.parametrize("streams", [1, 3, 7])
@pytest.mark.parametrize("n", [1, 20, 300])
def test_every_token_of_a_text_is_charged_once(network: RecurrentText, streams: int, n: int) -> None:
    x, first = tokens(n), 3
    length = math.ceil(n / streams)
    expected = 0.0
    for begin in range(0, n, length):  # each stream on its own, from a fresh state
        part = x[begin : begin + length]
        before = torch.cat([torch.tensor([first]), x])[begin : begin + len(part)]
        logits, _ = network(before[None], network.start(1))
        expected += F.cross_entropy(logits[0], part, reduction="sum").item()
    assert nll(network, x, first, streams) == pytest.approx(expected, rel=1e-5)


def test_dropout_is_of_training_only() -> None:
    network = RecurrentText(V, width=16, dropout=0.5)
    x, state = tokens(2, 4), network.start(2)
    assert not network(x, state)[0].equal(network(x, state)[0])
    network.eval()
    assert network(x, state)[0].equal(network(x, state)[0])


def test_a_configuration_that_no_network_has_is_named() -> None:
    with pytest.raises(ValueError, match="layers of at least 1 and dropout"):
        RecurrentText(V, layers=0)
    with pytest.raises(ValueError, match=r"dropout in \[0, 1\)"):
        RecurrentText(V, dropout=1.0)
    with pytest.raises(ValueError, match="network must be one of recurrent, ngram, got 'lstm'"):
        TextModel(family="text", network="lstm", n_tokens=V, net={}).build()
