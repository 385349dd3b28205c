"""A file is old or new and never half-written, and every error names it."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from genserve.files import write_atomic, write_json
from genserve.runs.tensors import save_state, write_weights

WRITES: list[Callable[[Path], None]] = [
    lambda path: write_atomic(path, b"new" * 1000),
    lambda path: write_json(path, ["new"] * 1000),
    lambda path: write_weights(path, {"new": torch.zeros(1000)}),
    lambda path: save_state(path, {"new": torch.zeros(1000)}),
]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_fails_half_way_leaves_the_old_file_and_names_it(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]], write: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(1000), pytest.raises(OSError, match="File too large") as refusal:
        write(path)
    assert refusal.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", WRITES)
def test_a_file_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    path, sync, synced = tmp_path / "file", os.fsync, []

    def record(descriptor: int) -> None:
        sync(descriptor)
        synced.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", record)
    write(path)
    assert synced == [(path.stat().st_size, False)]


def test_a_write_that_succeeds_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a longer old one")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_never_written_with_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.5, "name": "é"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.5, "name": "é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["loss"] == 1.5
