"""The run directory while it grows: whose it is, what it refuses before it writes, where it goes on from."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from line_runs import begun, checkpoint, trained
from unchanged import state_of

from genserve.files import digest
from genserve.learning.checkpoint import STOP, held
from genserve.runs.directory import read_config, read_metrics
from genserve.runs.tensors import read_weights, save_state, write_weights


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


# ---- going on ----------------------------------------------------------------------------------------------


def test_a_checkpoint_gives_back_what_was_saved_and_drops_what_came_later(directory: Path) -> None:
    before = checkpoint(directory)
    assert before.resume(*trained(), total=100) == {}
    saved = trained(0.25)
    before.record(50, loss=0.5)
    before.save(60, *saved, buffer=torch.arange(3))
    before.record(100, loss=0.4)
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "lo')  # killed here
    (directory / ".state.pt.17.part").write_bytes(b"half")  # and here

    resumed = trained()
    rest = checkpoint(directory).resume(*resumed, total=100)
    assert rest["step"] == 60
    assert rest["buffer"].equal(torch.arange(3))
    for live, old in zip(resumed[:2], saved[:2], strict=True):
        assert all(value.equal(old.state_dict()[name]) for name, value in live.state_dict().items())
    moments = [optimizer.state_dict()["state"][0]["exp_avg"] for optimizer in (saved[2], resumed[2])]
    assert moments[0].equal(moments[1])
    assert (directory / "metrics.jsonl").read_text() == '{"step": 50, "loss": 0.5}\n'
    assert read_config(directory)["train"]["widths"] == [1, 2]
    assert not list(directory.glob(".*"))


def test_a_run_that_is_asked_to_stop_ends_at_its_next_checkpoint_and_does_not_go_on_by_itself(
    directory: Path,
) -> None:
    begun(directory, step=20)
    running = checkpoint(directory)
    running.resume(*trained(), total=100)
    (directory / STOP).touch()
    with pytest.raises(SystemExit, match="stopped after 40 steps"):
        running.save(40, *trained(0.5))
    with pytest.raises(ValueError, match=f"{STOP} asks this run to stop: remove it to go on"):
        checkpoint(directory).resume(*trained(), total=100)
    (directory / STOP).unlink()
    assert checkpoint(directory).resume(*trained(), total=100)["step"] == 40


def test_a_run_that_is_asked_to_stop_at_its_last_checkpoint_ends_as_it_would_have(directory: Path) -> None:
    begun(directory, step=90)
    running = checkpoint(directory)
    running.resume(*trained(), total=100)
    (directory / STOP).touch()
    running.save(100, *trained(0.5))
    assert read_config(directory)["steps"] == 100


def test_a_run_that_never_saved_starts_afresh(directory: Path) -> None:
    checkpoint(directory).resume(*trained(), total=100)
    checkpoint(directory).record(50, loss=0.5)
    assert checkpoint(directory, lr=0.2).resume(*trained(), total=100) == {}
    assert read_metrics(directory) == []
    assert read_config(directory)["train"]["lr"] == 0.2


def test_a_repeated_run_that_is_finished_writes_nothing(directory: Path) -> None:
    begun(directory, step=100)
    before = state_of(directory)
    assert checkpoint(directory).resume(*trained(), total=100)["step"] == 100
    assert state_of(directory) == before


def test_weights_that_a_kill_kept_from_being_written_are_written_when_the_run_goes_on(
    directory: Path,
) -> None:
    """The state comes first, so that after any kill there is either no checkpoint or one to go on from."""
    begun(directory, 0.25, step=60)
    old = (directory / "weights.safetensors").read_bytes()
    for kept in (None, {"best": torch.ones(2)}):
        network, ema, optimizer = trained(0.75)
        checkpoint(directory).save(100, network, ema, optimizer, kept)
        complete = (directory / "weights.safetensors").read_bytes()
        assert complete != old
        for left in (old, None):
            (directory / "weights.safetensors").unlink()
            if left:
                (directory / "weights.safetensors").write_bytes(left)
            checkpoint(directory).resume(*trained(), total=100)
            assert (directory / "weights.safetensors").read_bytes() == complete


def test_a_first_checkpoint_whose_weights_cannot_be_written_is_one_to_go_on_from(directory: Path) -> None:
    first = checkpoint(directory)
    first.resume(*trained(), total=100)
    (directory / "weights.safetensors").mkdir()  # in the way
    with pytest.raises(IsADirectoryError) as refusal:
        first.save(60, *trained(0.25))
    assert refusal.value.filename == str(directory / "weights.safetensors")
    (directory / "weights.safetensors").rmdir()
    assert checkpoint(directory).resume(*trained(), total=100)["step"] == 60
    assert read_weights(directory / "weights.safetensors")["weight"].eq(0.25).all()


def test_a_full_disk_leaves_the_last_checkpoint_and_is_named(
    directory: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    begun(directory)
    before = state_of(directory)
    with full_disk(1000), pytest.raises(OSError, match=r"File too large: .*run/state\.pt") as refusal:
        checkpoint(directory).save(70, *trained(0.5))
    assert refusal.value.filename == str(directory / "state.pt")
    after = state_of(directory)
    assert {name: after[name] for name in after if name} == {name: before[name] for name in before if name}
    assert checkpoint(directory).resume(*trained(), total=100)["step"] == 60
    (directory / "metrics.jsonl").unlink()
    (directory / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl"):
        checkpoint(directory).record(70, loss=0.5)


def test_only_the_first_rank_writes(directory: Path) -> None:
    second = checkpoint(directory, first=False)
    assert second.resume(*trained(), total=100) == {}
    second.record(50, loss=0.5)
    second.save(50, *trained(1.0))
    assert not directory.exists()


def test_a_line_of_metrics_is_whole_as_soon_as_it_is_recorded(directory: Path) -> None:
    recorder = checkpoint(directory)
    recorder.resume(*trained(), total=100)
    for step in (50, 100):
        recorder.record(step, loss=1 / step)
        last = (directory / "metrics.jsonl").read_text().splitlines()[-1]
        assert json.loads(last) == {"step": step, "loss": 1 / step}


# ---- refusing ----------------------------------------------------------------------------------------------


def test_weights_without_a_state_are_never_overwritten(directory: Path) -> None:
    begun(directory)
    (directory / "state.pt").unlink()
    before = state_of(directory)
    with pytest.raises(ValueError, match=r"weights and no state\.pt .*--start-from .*run begins a new run"):
        checkpoint(directory).resume(*trained(), total=100)
    (directory / "config.json").unlink()  # even if nothing else is there
    with pytest.raises(ValueError, match=r"weights and no state\.pt"):
        checkpoint(directory).resume(*trained(), total=100)
    assert state_of(directory)["weights.safetensors"] == before["weights.safetensors"]


def foreign_state(directory: Path) -> None:
    save_state(directory / "state.pt", {"step": 60, "weights": torch.ones(1)})


def other_network(directory: Path) -> None:
    names, (network, ema, optimizer) = ("model", "ema", "optimizer"), trained(width=3)
    parts = (network.state_dict(), ema.state_dict(), optimizer.state_dict())
    save_state(directory / "state.pt", {"step": 60} | dict(zip(names, parts, strict=True)))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda d: os.truncate(d / "state.pt", 700), r"state\.pt is not a whole checkpoint"),
        (lambda d: (d / "state.pt").write_bytes(b""), r"state\.pt is not a whole checkpoint"),
        (foreign_state, r"state\.pt is no checkpoint: it has no ema, model, optimizer"),
        (other_network, r"state\.pt is of another network: weight is \(2, 3\), should be \(2, 2\)"),
        (lambda d: os.truncate(d / "config.json", 90), r"config\.json is not whole JSON"),
        (lambda d: (d / "config.json").write_text('{"a": 1}'), r"config\.json has format None"),
        (lambda d: (d / "config.json").write_text('{"format": 1, "model": {}, "train": 3}'), "config.json"),
        (lambda d: (d / "config.json").unlink(), "is no run directory: it has no config.json"),
        (lambda d: (d / "metrics.jsonl").write_text("no\n[]\n"), r"metrics\.jsonl, line 1,"),
    ],
)
def test_a_torn_or_foreign_file_is_named_before_anything_is_written(
    directory: Path, spoil: Callable[[Path], None], named: str
) -> None:
    begun(directory)
    spoil(directory)
    before = state_of(directory)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        checkpoint(directory).resume(*trained(), total=100)
    assert state_of(directory) == before


# ---- starting from another run -----------------------------------------------------------------------------


def test_a_new_run_starts_with_the_averaged_weights_of_another_and_records_which(directory: Path) -> None:
    begun(directory, 0.25)
    new, networks = directory.with_name("new"), trained()
    assert checkpoint(new, start_from=str(directory)).resume(*networks, total=100) == {}
    assert all(network.weight.eq(0.25).all() for network in networks[:2])
    config = read_config(new)
    assert config["train"]["start_from"] == str(directory)
    assert config["inputs"] == {"start_from": digest(directory / "weights.safetensors")}


def test_a_run_goes_on_without_the_weights_it_began_with_but_not_with_others(directory: Path) -> None:
    begun(directory)
    new, moved = directory.with_name("new"), directory.with_name("moved")
    begun(new, start_from=str(directory))
    shutil.move(directory, moved)
    recorded = read_config(new)["inputs"]
    for place in (directory, moved):  # gone, and somewhere else
        assert checkpoint(new, start_from=str(place)).resume(*trained(), total=100)["step"] == 60
        assert read_config(new)["inputs"] == recorded
    before = state_of(new)
    write_weights(moved / "weights.safetensors", trained(9.0)[1].state_dict())
    with pytest.raises(ValueError, match=r"another run \(start_from has other contents\)"):
        checkpoint(new, start_from=str(moved)).resume(*trained(), total=100)
    with pytest.raises(ValueError, match=r"another run \(start_from was '.*moved', is None\)"):
        checkpoint(new).resume(*trained(), total=100)
    assert state_of(new) == before


# ---- one program at a time ---------------------------------------------------------------------------------


def test_a_directory_is_one_programs_until_that_ends_however_it_ends(directory: Path) -> None:
    program = "import sys; from pathlib import Path; from genserve.learning.checkpoint import held\n"
    program += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        before = state_of(directory)
        with pytest.raises(ValueError, match=r"run is in use by another program"), held(directory):
            pass
        assert state_of(directory) == before == {"": before[""]}  # the lock is no file
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.communicate()
    with held(directory):
        (directory / "config.json").write_text("{}")
    assert directory.exists()


def test_a_directory_into_which_nothing_was_put_is_removed_again(directory: Path) -> None:
    with pytest.raises(ValueError, match="no such teacher"), held(directory):
        raise ValueError("no such teacher")
    assert not directory.exists()


def test_a_place_that_can_hold_no_run_is_named(directory: Path) -> None:
    directory.write_text("a file")
    for place in (directory, directory / "below"):
        with pytest.raises(NotADirectoryError) as refusal, held(place):
            pass
        assert refusal.value.filename == str(place)
