"""A run directory holds all there is of one training run: its settings, its weights, its history.

    config.json          the whole configuration, and what the model must know of its data
    weights.safetensors  the EMA weights
    state.pt             all that a resumed run needs (not shipped)
    metrics.jsonl        one JSON object per line
    samples.png          a picture
    stop                 asks the program that trains to end at its next checkpoint
    words.txt            of vectors of words: a word per line, in the order of the vectors

Every file is old or new and never half-written (genserve/files.py).
"""

import json
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import nn

from genserve.families import FAMILIES, load
from genserve.files import naming, parsing, read_json
from genserve.models.classifier import Classifier, ClassifierConfig
from genserve.models.config import ModelConfig
from genserve.models.denoiser import Denoiser
from genserve.models.words import WordVectors
from genserve.runs.tensors import load_weights, read_weights

FORMAT = 1  # of config.json

Net = TypeVar("Net", bound=nn.Module, covariant=True)


class Config(Protocol[Net]):
    """The `model` part of config.json, as the class that its family's row names."""

    @property
    def family(self) -> str: ...

    def build(self) -> Net: ...


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


def read_words(directory: Path) -> tuple[str, ...]:
    """Return the words of a run's vectors, in the order of the vectors.

    Raises:
        FileNotFoundError: there is no words.txt.
        OSError: it cannot be read.
        ValueError: it is not UTF-8.
    """
    path = directory / "words.txt"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {directory} holds no vectors of words")
    with naming(path):
        data = path.read_bytes()
    with parsing(path, "a list of words"):
        return tuple(data.decode().splitlines())


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


def load_words(directory: Path) -> WordVectors:
    """Return a run's vectors of words; as `load_model`, and ValueError if the run is of another family."""
    model = load_model(directory)
    if not isinstance(model, WordVectors):
        raise ValueError(f"{directory} holds no vectors of words")
    return model


def _trained(config: Config[Net], directory: Path) -> Net:
    """Return the network of a configuration with the weights of a run."""
    path = directory / "weights.safetensors"
    with parsing(directory / "config.json", "a model that this version can build"):
        network = config.build()
    load_weights(network, read_weights(path), path)
    return network.eval().requires_grad_(False)
