"""Fixtures of all tests: exact noise, a full disk, real servers; property tests repeat their examples."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import archives
import program
import pytest
import torch
from hypothesis import settings
from real_server import ROOT, Server, free_ports
from torch import Tensor

from genserve.compiling.convert import compile_run
from genserve.families import FAMILIES, Family
from genserve.operate.archive import SHIPPED
from genserve.runs.export import export
from genserve.sampling.noise import Noise

pytest_plugins = ["no_skips"]
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("repeatable")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a program of a background job would ignore it
torch.set_num_threads(1)  # tests compute little: threads would only wait for each other


@pytest.fixture
def noise() -> Noise:
    """Standard normal noise like x, seeded, in x's dtype: float64 for exact tests."""
    generator = torch.Generator().manual_seed(0)

    def draw(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    return draw


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Limit the size of every file to this many bytes, so that the system itself stops a write half way."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # or an import in the block would leave half a .pyc

    @contextmanager
    def limited(n_bytes: int) -> Iterator[None]:
        limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    build = [sys.executable, str(ROOT / "scripts" / "build_archives"), "--output", str(folder / "store")]
    batched = [
        "--run",
        str(ROOT / "weights/diffusion-mnist"),
        "--name",
        "diffusion-batched",
        "--mode",
        "batched",
    ]
    classic = ["--run", str(ROOT / "weights/energy-mnist-pcd"), "--name", "energy-pcd"]
    classic += ["--backend", "torchscript"]
    for more in ([], batched, classic):
        subprocess.run([*build, *more], check=True)
    shutil.copy(ROOT / "model_store/README.md", folder / "store")  # no archive
    with Server(free_ports(5), folder / "home", folder / "store").running() as server:
        yield server


@pytest.fixture(scope="session")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of every shipped run of the families beside pictures along noise levels."""
    folder = tmp_path_factory.mktemp("course")
    names = []
    for name, run in SHIPPED.items():
        model = json.loads((ROOT / run / "config.json").read_text())["model"]
        if FAMILIES[model["family"]].contract != Family.contract:
            names.append(name)
    archives.shipped(folder / "store", *names)
    with Server(free_ports(5), folder / "home", folder / "store").running() as server:
        yield server


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a shipped run, by its name, as its archives with OpenVINO have it; read it only.

    A denoiser is also compiled in int8. A run is compiled once, when it is first asked for.
    """

    @cache
    def folder(name: str) -> Path:
        run, files = ROOT / "weights" / name, tmp_path_factory.mktemp(name)
        export(run, files)
        compile_run(run, files)
        if "energy" not in name:
            compile_run(run, files, int8=True)
        return files

    return folder


def pytest_runtest_teardown() -> None:
    """End all programs, also if the test or one of its fixtures failed."""
    program.end_all()


def pytest_sessionfinish() -> None:
    program.end_all()  # Ctrl-C in a test
