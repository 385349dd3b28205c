"""A server of a small archive that a test may harm."""

from collections.abc import Iterator
from pathlib import Path

import archives
import pytest
from real_server import Server, free_ports


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archives.packed(tmp_path_factory.mktemp("small"))


@pytest.fixture
def fresh(tmp_path: Path, small_archive: Path) -> Iterator[Server]:
    """Yield a server that a test may start and harm, with a store of its own that it may spoil."""
    store = tmp_path / "store"
    store.mkdir()
    (store / small_archive.name).write_bytes(small_archive.read_bytes())
    server = Server(free_ports(5), tmp_path / "home", store)
    yield server
    server.serve("stop", None, "--now")
