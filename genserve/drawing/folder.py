"""Keep drawn pictures in a folder, as files or WebDataset shards, with their settings in settings.json.

    00001.png, ...       picture k of a seed is file k + 1
    shard-00000.tar, ... for each picture its .png, its description in .json, its class as a number in .cls

settings.json is written first, and every file completely or not at all. So a run that continues a folder,
even after a kill, draws only the pictures without a complete file. Several processes may write into one
folder, on several machines, each its own files.
"""

import io
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genserve.files import parsing, read_json, write_json

log = logging.getLogger(__name__)

SETTINGS = "settings.json"
NAMES = re.compile(r"\d{5,}\.png|shard-\d{5,}\.tar")  # those of `file_of`
PNG_BEGINS, PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
TAR_ENDS = bytes(2 * tarfile.BLOCKSIZE)


def name_of(k: int) -> str:
    """Return the name of picture k, without its ending."""
    return f"{k + 1:05}"


def file_of(k: int, shards: int | None) -> str:
    """Return the name of picture k's file: its own, or a shard of this many pictures."""
    return f"shard-{k // shards:05}.tar" if shards else f"{name_of(k)}.png"


def settings_of(folder: Path) -> dict[str, Any] | None:
    """Return the settings that a folder was drawn with, or None without settings.json.

    Raises:
        ValueError: it is not a settings.json of this program.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return None
    settings: dict[str, Any] = read_json(path)
    with parsing(path, "what generate.py writes"):
        return settings | {
            "seed": settings["seed"],
            "asked": dict(settings["asked"]),
            "drawn": settings["drawn"],
        }


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder with files named as in `file_of` but without settings.json, which is written first.

    Raises:
        ValueError: it is such a folder, or a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, must be a folder: give another --output-dir")
    names = os.listdir(folder) if folder.is_dir() else []
    # settings.json is looked for after the names: another process may be writing its first files
    if (foreign := sorted(filter(NAMES.fullmatch, names))) and settings_of(folder) is None:
        raise ValueError(
            f"{folder} has {foreign[0]} and no {SETTINGS}, which says how it was drawn: "
            "give another --output-dir"
        )


def torn(folder: Path, names: Iterable[str]) -> set[str]:
    """Return the incomplete files among these of a folder, and log their number; raises as `is_whole`."""
    names = {name for name in names if not is_whole(folder / name)}
    if names:
        log.warning("%d files are cut short and are drawn again (%s)", len(names), min(names))
    return names


def is_whole(file: Path) -> bool:
    """Return whether a picture or shard is complete, by its beginning and its end.

    Raises:
        ValueError: it is a folder.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder, must be a file of pictures: give another --output-dir")
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        begins = opened.read(tarfile.BLOCKSIZE)
        opened.seek(max(0, size - len(TAR_ENDS)))
        ends = opened.read()
    if file.suffix == ".png":
        return begins.startswith(PNG_BEGINS) and ends.endswith(PNG_ENDS)
    # a tar that is cut at the end of a record ends with bytes of a picture
    return size > 0 and size % tarfile.RECORDSIZE == 0 and ends == TAR_ENDS and begins[257:262] == b"ustar"


def refuse_changes(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether the folder has settings already; refuse it if they differ from these.

    Args:
        settings: "seed"; "asked", the user's flags; and "drawn", the settings made from them, once known.

    Raises:
        ValueError: the settings differ, or settings.json is torn or of another program.
    """
    before = settings_of(folder)
    if before is None:
        refuse_foreign(folder)
        return False
    changed = []
    for part in settings:
        was, now = before[part], settings[part]
        if part == "seed":
            was, now = {"seed": was}, {"seed": now}
        changed += [
            f"{name} was {was.get(name)}, is {now.get(name)}"
            for name in was | now
            if was.get(name) != now.get(name)
        ]
    if changed:
        raise ValueError(f"{folder} was drawn otherwise ({'; '.join(changed)}): give another --output-dir")
    return True


def keep_settings(folder: Path, settings: dict[str, Any], rank: int) -> None:
    """Write settings.json unless the folder has it; raises as `refuse_changes`."""
    if refuse_changes(folder, settings):
        return
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f".settings-{rank}.json"  # ranks on several machines may have the same process id
    write_json(own, settings)
    own.replace(folder / SETTINGS)


def remove_torn(folder: Path, names: Iterable[str], files: Iterable[str]) -> None:
    """Remove the temporary files that a kill has left of these files.

    Args:
        names: all names in the folder.
    """
    complete = set(files)
    for name in names:
        # the temporary file of `write_atomic` is .FILE.PROCESS.part
        if name.endswith(".part") and name[1:].rsplit(".", 2)[0] in complete:
            (folder / name).unlink(missing_ok=True)


def shard(entries: list[dict[str, Any]], pngs: list[bytes]) -> bytes:
    """Return a WebDataset shard; the same pictures give the same bytes.

    Args:
        entries: the description of each picture in a reply, with `index` and `label`.
        pngs: the pictures.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry, png in zip(entries, pngs, strict=True):
            known = {key: value for key, value in entry.items() if key != "png"}
            members = {"png": png, "json": json.dumps(known, sort_keys=True).encode()}
            if entry["label"] is not None:
                members["cls"] = str(entry["label"]).encode()
            for ending, data in members.items():
                member = tarfile.TarInfo(f"{name_of(entry['index'])}.{ending}")  # of time 0 and owner 0
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
