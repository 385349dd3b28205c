"""A folder of drawn pictures: the contents of a shard, and folders that are refused."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genserve import images
from genserve.drawing.folder import (
    file_of,
    is_whole,
    keep_settings,
    refuse_changes,
    remove_torn,
    settings_of,
    shard,
)

ENTRIES: list[dict[str, Any]] = [
    {"index": 4, "label": 7, "seed": 3, "png": "in base64"},
    {"index": 5, "label": None, "seed": 3, "energy": 0.5, "png": "in base64"},
]
SETTINGS = {"seed": 3, "asked": {"steps": None}, "drawn": {"steps": 18}}


def test_a_shard_holds_each_picture_its_class_and_what_is_known_of_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(shard(ENTRIES, [b"one", b"two"]))) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in tar} == {
            (0, 0, "", 0o644)
        }
    assert json.loads(held.pop("00005.json")) == {"index": 4, "label": 7, "seed": 3}
    assert json.loads(held.pop("00006.json")) == {"index": 5, "label": None, "seed": 3, "energy": 0.5}
    assert held == {"00005.png": b"one", "00005.cls": b"7", "00006.png": b"two"}  # no class, no .cls


@pytest.mark.parametrize(
    ("k", "shards", "name"),
    [
        (0, None, "00001.png"),
        (99_999, None, "100000.png"),
        (999, 1000, "shard-00000.tar"),
        (1000, 1000, "shard-00001.tar"),
    ],
)
def test_names_count_pictures_from_one_and_shards_from_zero(k: int, shards: int | None, name: str) -> None:
    assert file_of(k, shards) == name


def test_a_folder_keeps_its_first_settings(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    assert settings_of(folder) is None
    keep_settings(folder, SETTINGS, rank=0)
    keep_settings(folder, SETTINGS, rank=1)
    assert settings_of(folder) == SETTINGS
    assert [path.name for path in folder.iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"seed": 4}, r"\(seed was 3, is 4\)"),
        ({"asked": {"steps": 5}}, r"\(steps was None, is 5\)"),
        ({"asked": {"steps": None, "shards": 5}}, r"\(shards was None, is 5\)"),
        ({"drawn": {"steps": 18, "precision": "fp32"}}, r"\(precision was None, is fp32\)"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, changed: dict[str, Any], difference: str
) -> None:
    keep_settings(tmp_path, SETTINGS, rank=0)
    with pytest.raises(ValueError, match=f"was drawn otherwise {difference}: give another --output-dir"):
        keep_settings(tmp_path, SETTINGS | changed, rank=0)
    assert settings_of(tmp_path) == SETTINGS


@pytest.mark.parametrize("content", ["", '{"seed": 3, "ask', "[]", '{"seed": 3}', '{"seed": 3, "asked": 4}'])
def test_settings_that_are_torn_or_of_something_else_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json [^\n]*$"):
        keep_settings(tmp_path, SETTINGS, rank=0)
    assert (tmp_path / "settings.json").read_text() == content


def test_only_what_is_torn_and_ours_is_removed(tmp_path: Path) -> None:
    ours, others = [".00001.png.77.part", ".shard-00000.tar.8.part"], [".00002.png.77.part", "00001.png"]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    remove_torn(tmp_path, [*ours, *others, ".gone.png.1.part"], ["00001.png", "shard-00000.tar", "gone.png"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize("name", ["00002.png", "100000.png", "shard-00000.tar"])
def test_files_called_as_ours_are_foreign_without_settings(tmp_path: Path, name: str) -> None:
    (tmp_path / "holiday.png").touch()
    (tmp_path / "2.png").touch()
    for folder in (tmp_path, tmp_path / "new"):
        assert not refuse_changes(folder, SETTINGS)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"has {name} and no settings\.json.*give another --output-dir"):
        keep_settings(tmp_path, SETTINGS, rank=0)
    (tmp_path / name).unlink()
    keep_settings(tmp_path, SETTINGS, rank=0)
    (tmp_path / name).touch()
    assert refuse_changes(tmp_path, SETTINGS)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"seed": 3}'])
def test_settings_of_another_program_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json "):
        settings_of(tmp_path)


def test_a_file_is_whole_with_its_beginning_and_its_end(tmp_path: Path) -> None:
    png = images.png(np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8))
    for name, data in (("x.png", png), ("x.tar", shard(ENTRIES, [png * 100, png * 100]))):
        (tmp_path / name).write_bytes(data)
        assert is_whole(tmp_path / name)
        cuts = [0, 1, 20, len(data) // 2, len(data) - 1, *range(10_240, len(data), 10_240)]
        for cut in cuts:
            (tmp_path / name).write_bytes(data[:cut])
            assert not is_whole(tmp_path / name)
        (tmp_path / name).write_bytes(bytes(10_240))
        assert not is_whole(tmp_path / name)
    (tmp_path / "00001.png").mkdir()
    with pytest.raises(ValueError, match=r"00001\.png is a folder"):
        is_whole(tmp_path / "00001.png")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(ValueError, match="x is a file, must be a folder"):
        refuse_changes(tmp_path / "x", SETTINGS)
