"""Files of tensors: weights as safetensors, and checkpoints; each is old or new and never half-written."""

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from genserve.files import atomic, naming, write_atomic


def as_safetensors(weights: dict[str, Tensor]) -> bytes:
    """Return tensors as the contents of a safetensors file."""
    return safetensors.torch.save({k: v.contiguous().cpu() for k, v in weights.items()})


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as safetensors; raises as `atomic`."""
    write_atomic(path, as_safetensors(weights))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is another kind of file, or torn.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run has written no such file yet")
    try:
        with naming(path):
            return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load the weights of a file into a network.

    Raises:
        ValueError: they are those of another network.
    """
    ours, theirs = (
        {name: tuple(value.shape) for name, value in state.items()}
        for state in (network.state_dict(), weights)
    )
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"{path} is of another network: {name} is {theirs.get(name, 'missing')}, "
                f"should be {ours.get(name, 'missing')}"
            )
    network.load_state_dict(weights)


class _Sink:
    """A file for torch that keeps a failure for later: torch's own writer would end the process."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Nothing to do: `atomic` flushes."""


@contextmanager
def atomic_for_torch(path: Path) -> Iterator[Any]:
    """Open a file for torch to write, as `atomic` does."""
    with atomic(path) as file:
        sink = _Sink(file)
        yield sink
        if sink.error is not None:
            raise sink.error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers and containers of them; raises as `atomic`.

    The tensors are written one by one, so that memory holds no second copy of them.
    """
    with atomic_for_torch(path) as file:
        torch.save(state, file)


def read_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote, on the CPU.

    Raises:
        OSError: it cannot be read.
        ValueError: it is another kind of file, or torn.
    """
    with naming(path), path.open("rb") as file:
        complete = zipfile.is_zipfile(file)  # its table of contents is at the end
    try:
        if not complete:
            raise ValueError("its end is missing")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds {type(state).__name__}")
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a whole checkpoint: {_first_line(error)}") from error
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a checkpoint: it holds more than tensors and numbers") from error
    return state


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
