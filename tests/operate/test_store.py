"""A model store is looked through before the host sees it: every byte of an archive, and its manifest."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from genserve.operate.store import MANIFEST, Archive, inspect, survey

WEIGHTS = bytes(range(256)) * 40


def manifest(name: str = "dogs", version: str = "1.0") -> bytes:
    model = {
        "modelName": name,
        "modelVersion": version,
        "handler": "handler.py",
        "serializedFile": "model.pt",
    }
    return json.dumps({"model": model}).encode()


def write(path: Path, text: bytes = manifest(), weights: bytes = WEIGHTS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, text)
        archive.writestr("model.pt", weights)
    return path


def fault(path: Path) -> str:
    with pytest.raises(ValueError, match="it") as refusal:
        inspect(path)
    return str(refusal.value)


def test_an_archive_says_its_name_version_and_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mar")
    assert inspect(path) == Archive("a.mar", "dogs", "1.0", len(manifest()) + len(WEIGHTS))


@pytest.mark.parametrize("position", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_byte_that_has_changed_is_noticed(tmp_path: Path, position: float) -> None:
    path = write(tmp_path / "a.mar")
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 1
    path.write_bytes(data)
    assert "torn or no archive" in fault(path)


@pytest.mark.parametrize("n_bytes", [0, 1, 2, 100, 5000, -1])
def test_an_archive_that_ends_too_early_is_noticed(tmp_path: Path, n_bytes: int) -> None:
    path = write(tmp_path / "a.mar")
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert "torn or no archive" in fault(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b'{"model": 3}',
        b'{"model": {"modelName": "a"}}',
        manifest(""),
        b"[" * 100_000,
    ],
)
def test_a_manifest_that_names_no_model_is_noticed(tmp_path: Path, text: bytes) -> None:
    assert "names no model, version and handler" in fault(write(tmp_path / "a.mar", text))


def test_a_zip_file_of_something_else_is_no_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as archive:
        archive.writestr("holiday.txt", "sun")
    assert f"it has no {MANIFEST}" in fault(tmp_path / "a.mar")


@pytest.mark.parametrize("name", ["a,b.mar", "a=b.mar"])
def test_a_file_whose_name_the_host_would_cut_is_left_out(tmp_path: Path, name: str) -> None:
    assert "separator" in fault(write(tmp_path / name))


def test_the_host_s_other_kinds_of_archives_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / MANIFEST).write_bytes(manifest("plain"))
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        for name, data in ((f"top/{MANIFEST}", manifest("packed")), ("top/model.pt", WEIGHTS)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    archives, faults = survey(tmp_path)
    assert ([archive.name for archive in archives], faults) == (["packed", "plain"], {})
    data = (tmp_path / "packed.tar.gz").read_bytes()
    (tmp_path / "packed.tar.gz").write_bytes(data[: len(data) // 2])
    assert survey(tmp_path)[1].keys() == {"packed.tar.gz"}


def test_a_store_has_good_archives_and_bad_ones_and_what_is_none(tmp_path: Path) -> None:
    write(tmp_path / "good.mar")
    (tmp_path / "README.md").write_text("no archive")
    (tmp_path / ".half.mar").write_bytes(b"PK")
    (tmp_path / "logs").mkdir()
    (tmp_path / "torn.mar").write_bytes(b"PK")
    (tmp_path / "gone.mar").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.mar").mkdir()
    archives, faults = survey(tmp_path)
    assert [archive.file for archive in archives] == ["good.mar"]
    assert faults.keys() == {"torn.mar", "gone.mar", "folder.mar"}
    assert faults["gone.mar"] == "No such file or directory"


def test_the_newest_version_comes_first_and_twins_are_named(tmp_path: Path) -> None:
    for file, version in (("a.mar", "9.0"), ("b.mar", "10.0"), ("c.mar", "10.0-beta"), ("d.mar", "9.0")):
        write(tmp_path / file, manifest("dogs", version))
    write(tmp_path / "cats.mar", manifest("cats"))
    archives, faults = survey(tmp_path)
    assert [archive.file for archive in archives] == ["cats.mar", "b.mar", "c.mar", "a.mar"]
    assert faults == {"d.mar": "it is version 9.0 of dogs, as a.mar is"}


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert survey(tmp_path / "nowhere") == ([], {})
