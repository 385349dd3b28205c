"""What a run leaves while it learns: lines of metrics, checkpoints and pictures when they are due."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from line_runs import SETS, Model, trained

from genserve.learning.checkpoint import Checkpoint
from genserve.learning.config import GeneratorConfig
from genserve.learning.feed import Feed
from genserve.learning.ranks import Ranks
from genserve.learning.recorder import Recorder
from genserve.runs.directory import read_metrics
from genserve.runs.tensors import read_state

IMAGES = replace(SETS["data"], x=torch.arange(32, dtype=torch.uint8).view(8, 1, 2, 2))
ALONE = Ranks(0, 1, torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Settings(GeneratorConfig):
    """A program's settings have defaults, its name too."""

    name: str = "run"


def recorder(output: Path, ranks: Ranks = ALONE, **settings: Any) -> Recorder:
    """Return the recorder of a run of 2 steps per epoch."""
    config = Settings(output=str(output), batch_size=4, **settings)
    checkpoint = Checkpoint(config, Model(), {"data": IMAGES}, first=ranks.first)
    return Recorder(config, checkpoint, Feed(IMAGES, config, ranks), *trained())


def test_lines_checkpoints_and_pictures_come_when_they_are_due(tmp_path: Path) -> None:
    record = recorder(tmp_path, epochs=60, checkpoint_every=30, sample_every=40)
    dates: dict[str, list[int]] = {"state.pt": [], "samples.png": []}
    inodes = dict.fromkeys(dates, 0)  # a file that is replaced has another
    for step in range(120):
        measured = {"distance": 7.0} if step == 64 else None
        record.record(step, {"loss": float(step), "lr": 0.5}, lambda: b"picture", measured)
        for name, steps in dates.items():
            path = tmp_path / "run" / name
            if path.exists() and path.stat().st_ino != inodes[name]:
                inodes[name] = path.stat().st_ino
                steps.append(step + 1)
    record.close()
    assert dates == {"state.pt": [30, 60, 90, 120], "samples.png": [40, 80, 120]}
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [50, 65, 100, 120]
    assert [step + 1 for step in range(120) if record.due(step)] == [50, 100, 120]
    assert list(lines[0]) == ["step", "loss", "lr", "images", "images_per_s"]
    assert [lines[0][name] for name in ("loss", "lr", "images")] == [49, 0.5, 200]
    assert lines[1] == {"step": 65, "distance": 7.0}


def test_a_picture_that_cannot_be_drawn_comes_after_the_checkpoint_of_its_step(tmp_path: Path) -> None:
    def fails() -> bytes:
        raise ValueError("the image holds NaN")

    record = recorder(tmp_path, epochs=1)
    record.record(0, {"loss": 1.0}, fails)
    with pytest.raises(ValueError, match="NaN"):
        record.record(1, {"loss": 1.0}, fails)
    record.close()
    assert read_state(tmp_path / "run/state.pt")["step"] == 2


def test_included_tensors_go_into_checkpoints_and_come_back_in_place(tmp_path: Path) -> None:
    buffer = torch.zeros(3)
    first = recorder(tmp_path, epochs=2, checkpoint_every=3)
    first.include({"buffer": buffer})
    assert buffer.eq(0).all()  # nothing to fill it from
    for step in range(3):
        buffer += 1
        first.record(step, {"loss": 1.0}, lambda: b"picture")
    first.close()
    buffer += 5  # after the checkpoint
    later = torch.zeros(3)
    second = recorder(tmp_path, epochs=2, checkpoint_every=3)
    second.include({"buffer": later})
    second.close()
    assert second.start == 3
    assert later.eq(3).all()


def test_other_ranks_leave_nothing(tmp_path: Path) -> None:
    record = recorder(tmp_path, Ranks(1, 2, torch.device("cpu")), epochs=1)
    for step in range(2):
        record.record(step, {"loss": 1.0}, lambda: b"picture")
    record.close()
    assert not (tmp_path / "run").exists()
