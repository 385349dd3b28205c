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
