"""List the pictures of a folder and their classes: DIR/*.png, or DIR/CLASS/*.png.

docs/pictures.md has the rules. Other files are passed over and counted; a picture in an unexpected place is
an error, so that none is left out silently.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genserve.image_files import ENDINGS
from genserve.labels import in_order

OF_THE_SYSTEM = ("__macosx", "thumbs.db", "desktop.ini")  # in small letters
OTHER_SPLITS = ("val", "valid", "validation", "dev")  # folders that may lie beside train/ and test/


class Listing(NamedTuple):
    """The pictures of a folder, class by class, sorted by name."""

    files: list[Path]
    labels: list[int]  # of each file, an index of `classes`; 0 without classes
    classes: tuple[str, ...]  # () for none
    passed_over: str  # how many files were left out and why, for people; "" for none


def listed(folder: Path) -> Listing:
    """Return the pictures of a folder.

    Raises:
        FileNotFoundError: the folder has none, or does not exist.
        ValueError: pictures lie both beside and inside class folders, or deeper than one folder; or a folder
            cannot be read.
    """
    rest = _Rest()
    beside, folders = _entries(folder, rest) if folder.is_dir() else ([], [])
    pictures: dict[str, list[Path]] = {}
    for class_folder in folders:
        inside, deeper = _entries(class_folder, rest)
        above = (folder.resolve(), class_folder.resolve())
        buried = [file for each in deeper for file in _buried(each, above, rest)]
        if buried:
            raise ValueError(
                f"{class_folder} has {_counted(buried)} deeper than one folder ({buried[0]}): a folder of "
                "pictures is DIR/*.png or DIR/CLASS/*.png"
            )
        if inside:
            pictures[class_folder.name] = inside
        else:
            rest.add("without pictures", class_folder)
    if beside and pictures:
        in_class = [file for each in pictures.values() for file in each]
        raise ValueError(
            f"{folder} has {_counted(beside)} beside class folders ({beside[0].name}) and {len(in_class)} in "
            f"them ({in_class[0].relative_to(folder)}): put all into class folders, or none"
        )
    if not beside and not pictures:
        raise FileNotFoundError(f"no picture ({', '.join(ENDINGS)}) in {folder.resolve()}")
    classes = in_order(pictures)
    files = [(file, k) for k, name in enumerate(classes) for file in pictures[name]]
    files = files or [(file, 0) for file in beside]
    return Listing([file for file, _ in files], [k for _, k in files], classes, rest.described())


def split_of(root: Path, split: str) -> Listing:
    """Return the pictures of one split: of ROOT/train or ROOT/test, or of ROOT if it has no such folders.

    Args:
        split: "train" or "test"; the classes and their order are those of train.

    Raises:
        FileNotFoundError, ValueError: as `listed`; or the root has pictures beside train/ and test/, or no
            test/; or test has other classes than train.
    """
    if split == "test" and not (root / "test").is_dir():
        raise FileNotFoundError(
            f"{root} has no folder test: a folder of images is split into train/ and test/"
        )
    if not (root / "train").is_dir():
        return listed(root / "test" if split == "test" else root)
    rest = _Rest()
    beside, folders = _entries(root, rest)
    for folder in folders:
        if folder.name in OTHER_SPLITS:
            rest.add("neither train nor test", folder)
        elif folder.name not in ("train", "test"):
            beside += _buried(folder, (root.resolve(),), rest)
    if beside:
        raise ValueError(
            f"{root} has {_counted(beside)} beside train/ and test/ ({beside[0].relative_to(root)}): put all "
            "into these two, or call no class train"
        )
    own, train = listed(root / split), listed(root / "train")
    if unknown := [name for name in own.classes if name not in train.classes]:
        raise ValueError(f"{root / 'test'} has classes that {root / 'train'} has not: {', '.join(unknown)}")
    if train.classes and not own.classes:
        raise ValueError(
            f"{root / 'test'} has no class folders, {root / 'train'} has {', '.join(train.classes)}"
        )
    labels = [train.classes.index(own.classes[k]) for k in own.labels] if train.classes else own.labels
    notes = ", ".join(filter(None, (own.passed_over, rest.described())))
    return Listing(own.files, labels, train.classes, notes)


class _Rest:
    """The paths that were passed over, by reason."""

    def __init__(self) -> None:
        self._paths: dict[str, list[Path]] = {}

    def add(self, reason: str, path: Path) -> None:
        self._paths.setdefault(reason, []).append(path)

    def described(self) -> str:
        return ", ".join(
            f"{len(paths)} {reason} ({paths[0].name}{', ...' if len(paths) > 1 else ''})"
            for reason, paths in self._paths.items()
        )


def _entries(folder: Path, rest: _Rest) -> tuple[list[Path], list[Path]]:
    """Return the pictures and the folders in a folder, sorted by name, and follow links."""
    pictures, folders = [], []
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror})") from None
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            rest.add("hidden", path)
        elif entry.name.lower() in OF_THE_SYSTEM:
            rest.add("of the system", path)
        elif entry.is_dir():
            folders.append(path)
        elif path.suffix.lower() in ENDINGS:
            pictures.append(path)
        else:
            rest.add("without a picture's ending", path)
    return pictures, folders


def _buried(folder: Path, above: Sequence[Path], rest: _Rest) -> list[Path]:
    """Return all pictures in a folder, at any depth."""
    if folder.resolve() in above:
        rest.add("linked to a folder above", folder)
        return []
    pictures, folders = _entries(folder, rest)
    for inner in folders:
        pictures += _buried(inner, (*above, folder.resolve()), rest)
    if not pictures:
        rest.add("without pictures", folder)
    return pictures


def _counted(files: list[Path]) -> str:
    return f"{len(files)} picture{'s' if len(files) > 1 else ''}"
