"""Ranks: what each has of a batch, and one process alone."""

import pytest
import torch
from torch import nn

from genserve.learning.ranks import Ranks, join_ranks

CPU = torch.device("cpu")


def test_the_parts_of_the_ranks_make_up_the_batch() -> None:
    batch = torch.arange(12).view(12, 1)
    parts = [Ranks(rank, 4, CPU).mine(batch) for rank in range(4)]
    assert [len(part) for part in parts] == [3] * 4
    assert torch.equal(torch.cat(parts), batch)


def test_alone_a_process_is_the_first_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    ranks = join_ranks("cpu")
    model, batch = nn.Linear(1, 1), torch.arange(4)
    assert ranks.first
    assert ranks.wrap(model) is model
    assert torch.equal(ranks.mine(batch), batch)
    assert ranks.mean(torch.tensor(3.5)) == 3.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's compiler has one
def test_a_compiled_model_computes_the_same_and_learns_with_the_same_weights() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.SiLU()), torch.randn(5, 3)
    compiled = Ranks(0, 1, CPU).wrap(model, compiled=True)
    assert compiled is not model
    torch.testing.assert_close(compiled(x), model(x))
    assert {id(p) for p in compiled.parameters()} == {id(p) for p in model.parameters()}
    compiled(x).sum().backward()
    assert model[0].weight.grad is not None
