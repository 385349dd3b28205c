"""A training program that is killed in this process, at the checkpoint of a step."""

from collections.abc import Callable
from typing import Any

import pytest

from genserve.learning.checkpoint import Checkpoint


def killed_at(step: int, program: Callable[[], Any]) -> None:
    """Run a program until it is about to write the checkpoint of this step."""
    save = Checkpoint.save

    def saved(self: Checkpoint, at: int, *models: Any, **more: Any) -> None:
        if at == step:
            raise KeyboardInterrupt
        save(self, at, *models, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoint, "save", saved)
        with pytest.raises(KeyboardInterrupt):
            program()
