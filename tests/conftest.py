"""Fixtures of all tests: exact noise, a full disk, a real server; property tests repeat their examples."""

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import program
import pytest
import torch
from hypothesis import settings
from real_server import ROOT, Server, free_ports
from torch import Tensor

from genserve.sampling.noise import Noise

pytest_plugins = ["no_skips"]
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("repeatable")
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
    for more in ([], batched, classic):
        subprocess.run([*build, *more], check=True)
    shutil.copy(ROOT / "model_store/README.md", folder / "store")  # no archive
    with Server(free_ports(5), folder / "home", folder / "store").running() as server:
        yield server


def pytest_runtest_teardown() -> None:
    """End all programs, also if the test or one of its fixtures failed."""
    program.end_all()


def pytest_sessionfinish() -> None:
    program.end_all()  # Ctrl-C in a test
