"""A folder of drawn pictures, files or WebDataset shards, with settings.json, which says how they were drawn.

    00001.png, ...       picture k of a seed is file k + 1
    shard-00000.tar, ... of each picture its .png, what is known of it in .json, its class as a number in .cls

Every file is written as a whole or not at all, so whoever goes on with a folder, after a kill too, draws what
has no file. Several processes may write into one folder, on several machines, each its own files.
"""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genserve.files import parsing, read_json, write_json

SETTINGS = "settings.json"


def name_of(k: int) -> str:
    """Return the name of picture k, without its ending."""
    return f"{k + 1:05}"


def file_of(k: int, shards: int | None) -> str:
    """Return the name of the file that holds picture k: its own, or a shard of so many pictures."""
    return f"shard-{k // shards:05}.tar" if shards else f"{name_of(k)}.png"


def settings_of(folder: Path) -> dict[str, Any] | None:
    """Return how the pictures of a folder were drawn, or none where there are none."""
    path = folder / SETTINGS
    if not path.is_file():
        return None
    settings: dict[str, Any] = read_json(path)
    with parsing(path, "how the pictures of a folder were drawn"):
        return settings | {"seed": settings["seed"], "asked": dict(settings["asked"])}


def refuse_changes(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether the folder was begun, with these settings as far as they go.

    Args:
        settings: "seed", "asked", what the user said, and, once it is known, "drawn", what was made of it.

    Raises:
        ValueError: it was drawn otherwise, or settings.json is torn or of something else.
    """
    before = settings_of(folder)
    if before is None:
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
        said = "; ".join(changed)
        raise ValueError(f"{folder} was drawn otherwise ({said}): give another --output-dir")
    return True


def keep_settings(folder: Path, settings: dict[str, Any], rank: int) -> None:
    """Write settings.json where there is none; raises as `refuse_changes`."""
    if refuse_changes(folder, settings):
        return
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f".settings-{rank}.json"  # ranks on several machines may have the same process id
    write_json(own, settings)
    own.replace(folder / SETTINGS)


def remove_torn(folder: Path, names: Iterable[str], files: Iterable[str]) -> None:
    """Remove what a kill in the middle of a write left of these files, among the names in the folder."""
    wanted = set(files)
    for name in names:
        # as `write_atomic` calls it: .FILE.PROCESS.part
        if name.endswith(".part") and name[1:].rsplit(".", 2)[0] in wanted:
            (folder / name).unlink(missing_ok=True)


def shard(entries: list[dict[str, Any]], pngs: list[bytes]) -> bytes:
    """Return a WebDataset shard; the same pictures give the same bytes.

    Args:
        entries: what an answer says of each picture, `index` and `label` among it.
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
