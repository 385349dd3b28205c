"""Many pictures from a run: a kill, several ranks and shards change no byte of them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from program import background
from real_server import ROOT

from genserve.commands import answerers
from genserve.commands import generate as PROGRAM
from genserve.files import write_json
from genserve.models.config import ModelConfig
from genserve.runs.directory import FORMAT
from genserve.runs.tensors import read_weights, write_weights


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model of 8 x 8 pictures with three classes knows nothing."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    directory.mkdir()
    model = ModelConfig(
        family="diffusion", shape=(1, 8, 8), classes=("a", "b", "c"), mean=0.0, std=0.5,
        sigma_min=0.01, sigma_max=20.0, net={"patch": 1, "channels": [16, 16], "attention": []},
    )  # fmt: skip
    torch.manual_seed(0)
    write_json(directory / "config.json", {"format": FORMAT, "model": asdict(model)})
    write_weights(directory / "weights.safetensors", model.build().state_dict())
    return directory


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answerers, "cores", lambda: 2)


def generate(folder: Path, *flags: object) -> dict[str, bytes]:
    """Run the program here and return the files of its folder."""
    PROGRAM.main(PROGRAM.command_line([*map(str, flags), "--output-dir", str(folder), "--seed", "5"]))
    return files(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(*flags: object) -> list[str]:
    return [str(ROOT / "scripts/generate.py"), *map(str, flags)]


def test_each_picture_is_there_once_and_is_another(tiny: Path, tmp_path: Path):
    drawn = generate(tmp_path, "--run", tiny, "--num-images", 50, "--steps", 2)
    assert drawn.keys() == {"settings.json"} | {f"{k:05}.png" for k in range(1, 51)}
    assert len(set(drawn.values())) == 51
    picture = Image.open(io.BytesIO(drawn["00050.png"]))
    assert (picture.mode, picture.size) == ("L", (8, 8))


@pytest.mark.parametrize("more", [(), ("--shards", 24)], ids=["files", "shards"])
def test_a_killed_run_goes_on_to_the_same_bytes(tiny: Path, tmp_path: Path, more: tuple[object, ...]):
    flags = ["--run", tiny, "--num-images", 160, "--steps", 40, *more]
    killed = tmp_path / "killed"
    with background(
        [sys.executable, *command(*flags, "--output-dir", killed, "--seed", 5)], stderr=subprocess.DEVNULL
    ) as process:
        while not (killed.is_dir() and len(list(killed.glob("*0*"))) > 1):
            assert process.poll() is None
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = files(killed)
    unbroken = generate(tmp_path / "unbroken", *flags)
    assert 1 < len(before) < len(unbroken)
    torn = ".shard-00006.tar.77.part" if more else ".00160.png.77.part"
    (killed / torn).write_bytes(b"half of it")  # as a kill in the middle of a write leaves it
    written = {name: (killed / name).stat().st_mtime_ns for name in before if not name.endswith(".part")}
    assert generate(killed, *flags) == unbroken
    assert all((killed / name).stat().st_mtime_ns == at for name, at in written.items())  # not drawn again


def test_a_hole_anywhere_is_filled_and_more_pictures_are_added(tiny: Path, tmp_path: Path):
    common = ["--run", tiny, "--steps", 2, "--rgb", "true"]
    complete = generate(tmp_path / "whole", *common, "--num-images", 45)
    generate(tmp_path / "part", *common, "--num-images", 20)
    for k in (3, 16, 17):
        (tmp_path / "part" / f"{k:05}.png").unlink()
    assert generate(tmp_path / "part", *common, "--num-images", 45) == complete
    assert Image.open(io.BytesIO(complete["00045.png"])).mode == "RGB"


@pytest.mark.parametrize("more", [(), ("--shards", 9)], ids=["files", "shards"])
def test_a_file_that_is_cut_short_is_drawn_again(
    tiny: Path, tmp_path: Path, more: tuple[object, ...], caplog: pytest.LogCaptureFixture
):
    flags = ["--run", tiny, "--steps", 2, "--num-images", 20, *more]
    drawn = generate(tmp_path, *flags)
    first, second, *_ = sorted(drawn.keys() - {"settings.json"})
    (tmp_path / first).write_bytes(b"")
    (tmp_path / second).write_bytes(drawn[second][:-20])
    assert generate(tmp_path, *flags) == drawn
    assert f"2 files are cut short and are drawn again ({first})" in caplog.messages


@pytest.mark.parametrize("data", [b"", b"a picture of another program"])
def test_a_folder_of_another_program_s_pictures_is_refused_and_left_alone(
    tiny: Path, tmp_path: Path, data: bytes
):
    (tmp_path / "00002.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"has 00002\.png and no settings\.json"):
        generate(tmp_path, "--run", tiny, "--steps", 2, "--num-images", 3)
    assert files(tmp_path) == {"00002.png": data}


def test_a_complete_folder_is_another_model_s_too(tiny: Path, tmp_path: Path):
    flags = ["--num-images", 5, "--steps", 2, "--seed", 1]
    before = generate(tmp_path / "out", "--run", tiny, *flags)
    assert generate(tmp_path / "out", "--run", tiny, *flags) == before
    other = tmp_path / tiny.name
    shutil.copytree(tiny, other)
    weights = read_weights(other / "weights.safetensors")
    write_weights(other / "weights.safetensors", {name: value + 1e-3 for name, value in weights.items()})
    with pytest.raises(ValueError, match=r"drawn otherwise \(weights was "):
        generate(tmp_path / "out", "--run", other, *flags)
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("more", [(), ("--shards", 9)], ids=["files", "shards"])
def test_ranks_share_out_the_pictures(
    tiny: Path, tmp_path: Path, more: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
):
    flags = ["--run", tiny, "--steps", 2, "--num-images", 70, *more]
    alone = generate(tmp_path / "alone", *flags)
    monkeypatch.setenv("WORLD_SIZE", "3")
    drawn: dict[str, bytes] = {}
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        part = generate(tmp_path / f"rank-{rank}", *flags)
        assert drawn.keys() & part.keys() <= {"settings.json"}  # each draws its own
        drawn |= part
    assert drawn == alone


def test_under_torchrun_two_processes_draw_into_one_folder(tiny: Path, tmp_path: Path):
    flags = ["--run", tiny, "--steps", 2, "--num-images", 70]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--"]
    output = command(*flags, "--output-dir", tmp_path / "two", "--seed", 5)
    done = subprocess.run([sys.executable, *torchrun, *output], capture_output=True, text=True, check=True)
    assert files(tmp_path / "two") == generate(tmp_path / "one", *flags)
    assert done.stdout == f"38 images of 70 on 2 ranks, seed 5, in {tmp_path / 'two'}\n"


def test_shards_hold_the_pictures_in_order_the_last_one_what_is_left(tiny: Path, tmp_path: Path):
    flags = ["--run", tiny, "--steps", 2, "--num-images", 50]
    single = generate(tmp_path / "files", *flags, "--label", "b")
    shards = generate(tmp_path / "shards", *flags, "--label", "b", "--shards", 20)
    assert sorted(shards) == ["settings.json", *(f"shard-{k:05}.tar" for k in range(3))]
    held = {}
    for k in range(3):
        with tarfile.open(fileobj=io.BytesIO(shards[f"shard-{k:05}.tar"])) as tar:
            names = tar.getnames()
            assert len(names) == 3 * (20, 20, 10)[k]
            assert [name for name in names if name.endswith("png")] == [
                f"{n + 1:05}.png" for n in range(20 * k, min(20 * k + 20, 50))
            ]
            held |= {name: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert {name: data for name, data in held.items() if name.endswith("png")} == {
        name: data for name, data in single.items() if name.endswith("png")
    }
    assert held["00021.cls"] == b"1"
    assert json.loads(held["00021.json"]) == {"index": 20, "label": 1, "seed": 5}


def test_what_goes_together_is_drawn_as_a_whole():
    """As on a GPU: three requests an evaluation, whichever pictures are missing."""
    assert list(PROGRAM.work([50, 47, 200], 48, 3, None)) == [
        [range(0, 16), range(16, 32), range(32, 48)],
        [range(48, 64), range(64, 80), range(80, 96)],
        [range(192, 208), range(208, 224), range(224, 240)],
    ]
    shards = list(PROGRAM.work([45], 40, 2, 70))
    assert shards == [[range(40, 56), range(56, 70)]]  # the last one ends where the pictures end


def test_several_requests_in_one_evaluation_are_the_same_pictures(tiny: Path):
    draw, together = answerers.from_run(tiny)
    assert together == 1  # on a CPU
    fields = [
        {"format": "json", "seed": 5, "steps": 2, "first_index": k, "num_samples": 4} for k in (0, 4, 8)
    ]
    alone = list(draw([[each] for each in fields]))
    assert [entry["index"] for answer in alone for entry in answer["images"]] == list(range(12))
    assert list(draw([fields])) == alone


def test_the_cores_of_a_machine_are_shared_out_among_its_ranks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for ranks, each in (("1", 8), ("3", 2), ("9", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert answerers.cores() == each


def test_a_seed_is_drawn_once_and_ranks_need_one(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config: dict[str, Any] = {"run": str(tiny), "steps": 1, "output_dir": str(tmp_path)}
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"seed: 2 ranks need the same one \(allowed: --seed 0 to "):
        PROGRAM.main(PROGRAM.GenerateConfig(**config))
    monkeypatch.setenv("WORLD_SIZE", "1")
    PROGRAM.main(PROGRAM.GenerateConfig(**config))
    seed = json.loads((tmp_path / "settings.json").read_text())["seed"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    PROGRAM.main(PROGRAM.GenerateConfig(**config | {"num_images": 18}))  # the folder has one
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == seed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-images", 0], "num_images must be at least 1, got 0"),
        (["--shards", 0], "shards must be at least 1, got 0"),
        (["--in-flight", -1], "in_flight must be at least 1, got -1"),
        (["--run", "nowhere"], "nowhere is no run directory"),
        (["--steps", 5000], r"steps: .*\(allowed: 1 to 1000\)"),
        (["--label", "d"], r"label: 'd' is no class of this model \(allowed: 0 to 2, or a, b, c\)"),
        (["--shards", 8], "was drawn otherwise .*shards was None, is 8"),
        (["--guidance", 2], "was drawn otherwise .*guidance was None, is 2.0"),
    ],
)
def test_what_is_wrong_is_said(tiny: Path, tmp_path: Path, flags: list[object], message: str):
    if "otherwise" in message:
        generate(tmp_path, "--run", tiny, "--num-images", 1)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        generate(tmp_path, "--run", tiny, *flags)


def test_a_folder_of_shards_keeps_its_number_of_pictures(tiny: Path, tmp_path: Path):
    generate(tmp_path, "--run", tiny, "--steps", 1, "--shards", 8, "--num-images", 12)
    with pytest.raises(ValueError, match="num_images was 12, is 16"):
        generate(tmp_path, "--run", tiny, "--steps", 1, "--shards", 8, "--num-images", 16)


def test_from_a_shell_a_mistake_is_one_sentence(tmp_path: Path):
    wrong = command("--output-dir", tmp_path, "--run", "nowhere")
    done = subprocess.run([sys.executable, *wrong], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: nowhere is no run directory: it has no config.json\n"
