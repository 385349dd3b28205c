"""A run directory holds all there is of one training run: its settings, its weights, its history.

    config.json          the whole configuration, and what the model must know of its data
    weights.safetensors  the EMA weights
    state.pt             all that a resumed run needs (not shipped)
    metrics.jsonl        one JSON object per line
    samples.png          a picture

Every file is old or new and never half-written (genserve/files.py).
"""

import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from genserve.families import FAMILIES, load
from genserve.files import atomic, naming, parsing, read_json, write_atomic
from genserve.models.classifier import Classifier, ClassifierConfig
from genserve.models.config import ModelConfig
from genserve.models.denoiser import Denoiser

FORMAT = 1  # of config.json

Net = TypeVar("Net", bound=nn.Module, covariant=True)


class Config(Protocol[Net]):
    """The `model` part of config.json, as the class that its family's row names."""

    @property
    def family(self) -> str: ...

    def build(self) -> Net: ...


# ---- tensors -----------------------------------------------------------------------------------------------


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


# ---- configuration and metrics -----------------------------------------------------------------------------


def read_config(directory: Path) -> dict[str, Any]:
    """Return config.json of a run.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is torn, or of a format that this version does not read.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{directory} is no run directory: it has no config.json")
    config: dict[str, Any] = read_json(path)
    if config.get("format") != FORMAT:
        raise ValueError(f"{path} has format {config.get('format')!r}; this version reads {FORMAT}")
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{path} has no model")
    return config


def trained_with(directory: Path, name: str) -> dict[str, Any]:
    """Return one group of settings of a run's training, such as its `data`; raises as `read_config`.

    Raises:
        ValueError: config.json has no such group.
    """
    settings = read_config(directory).get("train")
    group = settings.get(name) if isinstance(settings, dict) else None
    if not isinstance(group, dict):
        raise ValueError(f"{directory / 'config.json'} has no train.{name}")
    return group


def read_metrics(directory: Path, up_to: int | None = None) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl, without a last line that a kill cut short.

    Args:
        up_to: the last step to return; None returns all.

    Raises:
        OSError: the file cannot be read.
        ValueError: another line is not the record of a step.
    """
    path = directory / "metrics.jsonl"
    if not path.is_file():
        return []
    with naming(path):
        lines = path.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step = record["step"]
            if up_to is None or step <= up_to:
                records.append(record)
        except (ValueError, TypeError, LookupError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, is no record of a step") from error
    return records


# ---- the model ---------------------------------------------------------------------------------------------


def config_of(directory: Path) -> Config[nn.Module]:
    """Return the `model` part of a run's config.json, whatever its family.

    Raises:
        FileNotFoundError, OSError, ValueError: as `read_config`; or no family of this version has such a
            configuration.
    """
    model = read_config(directory)["model"]
    with parsing(directory / "config.json", "the configuration of a model"):
        if model["family"] not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {model['family']!r}")
        tuples = {name: tuple(model[name]) for name in ("shape", "classes") if name in model}
        config: Config[nn.Module] = load(FAMILIES[model["family"]].config)(**model | tuples)
    return config


def model_config(directory: Path) -> ModelConfig:
    """Return the configuration of a run's denoiser or energy.

    Raises:
        FileNotFoundError, OSError, ValueError: as `config_of`, or the run is of another family.
    """
    config = config_of(directory)
    if not isinstance(config, ModelConfig):
        raise ValueError(
            f"{directory} holds a model of family {config.family!r}, not a denoiser or an energy"
        )
    return config


def classifier_config(directory: Path) -> ClassifierConfig:
    """Return the configuration of a run's classifier.

    Raises:
        FileNotFoundError, OSError, ValueError: as `config_of`, or the run is of another family.
    """
    config = config_of(directory)
    if not isinstance(config, ClassifierConfig):
        raise ValueError(f"{directory} holds a model of family {config.family!r}, not a classifier")
    return config


def load_model(directory: Path) -> nn.Module:
    """Return a run's network with its EMA weights, in eval mode, frozen, on the CPU, whatever its family.

    Raises:
        FileNotFoundError, OSError, ValueError: as `config_of` and `read_weights`, or the weights are of
            another network than config.json.
    """
    return _trained(config_of(directory), directory)


def load_denoiser(directory: Path) -> Denoiser:
    """Return a run's denoiser; as `load_model`, and ValueError if the run is of another family."""
    model = load_model(directory)
    if not isinstance(model, Denoiser):
        raise ValueError(f"{directory} holds no diffusion model")
    return model


def load_classifier(directory: Path) -> Classifier:
    """Return a run's classifier; as `load_model`, and ValueError if the run is of another family."""
    return _trained(classifier_config(directory), directory)


def _trained(config: Config[Net], directory: Path) -> Net:
    """Return the network of a configuration with the weights of a run."""
    path = directory / "weights.safetensors"
    with parsing(directory / "config.json", "a model that this version can build"):
        network = config.build()
    load_weights(network, read_weights(path), path)
    return network.eval().requires_grad_(False)
