"""Look through a model store before the host does, which says nothing of an archive that it cannot read."""

import json
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from genserve.operate.chosen import chosen

MANIFEST = "MAR-INF/MANIFEST.json"
ENDINGS = (".mar", ".tar.gz")  # of archives; a folder with a manifest is one as well
SEPARATORS = ",="  # that the host's list of archives is read by
BLOCK = 2**20
# a password or an unknown packing are errors of the last two kinds
TORN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Archive:
    """What the manifest of an archive says of it."""

    file: str  # its name in the store
    name: str
    version: str
    unpacked: int  # bytes


def survey(store: Path) -> tuple[list[Archive], dict[str, str]]:
    """Return the archives of a store that can be served, and why each other one cannot.

    Of the versions of a model the one that was chosen comes first, then the newest: the host makes the first
    one the default.
    """
    archives: list[Archive] = []
    faults: dict[str, str] = {}
    for path in sorted(store.iterdir()) if store.is_dir() else []:
        if path.name.startswith(".") or not _claims_to_be_one(path):
            continue
        try:
            archive = inspect(path)
            twin = next((a for a in archives if (a.name, a.version) == (archive.name, archive.version)), None)
            if twin:
                raise ValueError(f"it is version {archive.version} of {archive.name}, as {twin.file} is")
            archives.append(archive)
        except (OSError, ValueError) as error:
            faults[path.name] = getattr(error, "strerror", None) or str(error)
    archives.sort(key=lambda archive: _parts(archive.version), reverse=True)
    default = {name: chosen(store, name) for name in {archive.name for archive in archives}}
    archives.sort(key=lambda archive: (archive.name, archive.version != default[archive.name]))
    return archives, faults


def outshone(archives: list[Archive]) -> list[tuple[Archive, Archive]]:
    """Return the archives that are the default though a newer version is there, each with the newest one."""
    models: dict[str, list[Archive]] = {}
    for archive in archives:
        models.setdefault(archive.name, []).append(archive)
    newest = {name: max(own, key=lambda archive: _parts(archive.version)) for name, own in models.items()}
    return [(own[0], newest[name]) for name, own in models.items() if own[0] != newest[name]]


def unpacked_at(temporary: Path) -> dict[tuple[str, str], float]:
    """Return when a server unpacked each version that it has, by name and version.

    Args:
        temporary: the server's folder of temporary files.
    """
    times: dict[tuple[str, str], float] = {}
    for manifest in temporary.glob(f"models/*/{MANIFEST}"):
        try:
            model = json.loads(manifest.read_text())["model"]
            key, written = (model["modelName"], model["modelVersion"]), manifest.stat().st_mtime
        except (OSError, ValueError, LookupError, TypeError):
            continue  # it is being unpacked, or removed
        times[key] = max(written, times.get(key, 0.0))
    return times


def inspect(path: Path) -> Archive:
    """Return what an archive says of itself, after every byte of it was read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is torn, or none of TorchServe's archives.
    """
    if any(character in path.name for character in SEPARATORS):
        raise ValueError("its file's name has a comma or '=', which the host takes for a separator")
    try:
        text, unpacked = _folder(path) if path.is_dir() else _tar(path) if _is_tar(path) else _zip(path)
    except TORN as error:
        raise ValueError(f"it is torn or no archive: {error}") from error
    if text is None:
        raise ValueError(f"it is none of TorchServe's archives: it has no {MANIFEST}")
    try:
        model = json.loads(text)["model"]
        name, version, handler = (model[key] for key in ("modelName", "modelVersion", "handler"))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"its {MANIFEST} names no model, version and handler") from error
    if not all(isinstance(word, str) and word for word in (name, version, handler)):
        raise ValueError(f"its {MANIFEST} names no model, version and handler")
    return Archive(path.name, name, version, unpacked)


def _claims_to_be_one(path: Path) -> bool:
    return path.name.endswith(ENDINGS) or (path / MANIFEST).is_file()


def _is_tar(path: Path) -> bool:
    return path.name.endswith(".tar.gz")


def _folder(path: Path) -> tuple[bytes | None, int]:
    manifest = path / MANIFEST
    return (manifest.read_bytes() if manifest.is_file() else None), 0  # the host links it: nothing is copied


def _zip(path: Path) -> tuple[bytes | None, int]:
    """Return the manifest of a zip file and its size unpacked; every entry is read, as its checksum needs."""
    text = None
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                if entry.filename == MANIFEST:
                    text = file.read()
                while file.read(BLOCK):
                    pass
        return text, sum(entry.file_size for entry in archive.infolist())


def _tar(path: Path) -> tuple[bytes | None, int]:
    """Return the manifest of a compressed tar file, whose first folder the host takes off, and its size."""
    text, size = None, 0
    with tarfile.open(path, "r|gz") as archive:
        for entry in archive:
            size += entry.size
            file = archive.extractfile(entry)
            if file and entry.name.partition("/")[2] == MANIFEST:
                text = file.read()
            while file and file.read(BLOCK):
                pass
    return text, size


def _parts(version: str) -> list[tuple[int, str]]:
    """Return a version's numbers and words, so that 10 comes after 9."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    numbers = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return [*numbers, (0, "")]  # a word comes before the end: 2.0-beta is older than 2.0
