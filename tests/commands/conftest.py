"""Runs to be measured: a classifier of 8 x 8 digits trained here, models of them that know nothing."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from real_server import ROOT

from genserve.files import write_json
from genserve.models.config import ModelConfig, OnceConfig
from genserve.models.gan import GanConfig
from genserve.models.vae import VaeConfig
from genserve.runs.directory import FORMAT
from genserve.runs.tensors import write_weights


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the 8 x 8 digits, from the real training program."""
    output = tmp_path_factory.mktemp("runs")
    flags = "--name digits --data.name digits --net.channels [16,32] --net.n-features 24 --warp.shift 0.5"
    flags += f" --epochs 6 --batch-size 50 --warmup 10 --ema-decay 0.9 --threads 1 --output {output}"
    command = [sys.executable, str(ROOT / "training/train_classifier.py"), *flags.split()]
    subprocess.run(command, check=True)
    return output / "digits"


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of the same digits that has not learnt yet."""
    return untrained("diffusion", tmp_path_factory.mktemp("runs") / "untrained")


@pytest.fixture(scope="module")
def energy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An energy whose residual is that of such a denoiser."""
    return untrained("energy", tmp_path_factory.mktemp("runs") / "energy")


def untrained(family: str, directory: Path) -> Path:
    """Return the run directory of a model of the 8 x 8 digits that knows nothing."""
    model = ModelConfig(
        family=family,
        energy="residual" if family == "energy" else "",
        shape=(1, 8, 8),
        classes=tuple("0123456789"),
        mean=-0.4,
        std=0.7,
        sigma_min=0.002,
        sigma_max=40.0,
        net={"patch": 1, "channels": [16, 16], "attention": []},
    )
    return written(model, directory)


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of the same digits that has not learnt yet."""
    net = {"z_dim": 6, "channels": (8, 8)}
    model = GanConfig(family="gan", shape=(1, 8, 8), classes=tuple("0123456789"), net=net)
    return written(model, tmp_path_factory.mktemp("runs") / "gan")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder of the same digits that has not learnt yet."""
    net = {"z_dim": 6, "channels": (8, 8), "hidden": 8, "couplings": 2, "coupling_hidden": 8}
    model = VaeConfig(family="vae", shape=(1, 8, 8), classes=tuple("0123456789"), net=net)
    return written(model, tmp_path_factory.mktemp("runs") / "vae")


def written(model: ModelConfig | OnceConfig, directory: Path) -> Path:
    """Write the run directory of a model, freshly initialised, and return it."""
    directory.mkdir(exist_ok=True)
    torch.manual_seed(0)
    write_json(directory / "config.json", {"format": FORMAT, "model": asdict(model)})
    write_weights(directory / "weights.safetensors", model.build().state_dict())
    return directory
