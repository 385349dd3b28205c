"""A folder's pictures are listed with their classes, and all other files are counted."""

from pathlib import Path
from typing import NoReturn

import pytest

from genserve.data.listing import listed, split_of


def write(root: Path, *names: str) -> None:
    """Write empty files: their names are all that counts here."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_what_is_no_picture_is_passed_over_and_counted(tmp_path: Path) -> None:
    pictures = ["cat/1.png", "cat/2.JPEG", "dog/3.Tif"]
    write(
        tmp_path, *pictures, ".ipynb_checkpoints/1.png", "cat/._1.png", "cat/.DS_Store", "__MACOSX/cat/1.png",
        "Thumbs.db", "dog/desktop.ini", "labels.csv", "cat/notes.txt", "ant/notes.txt",
    )  # fmt: skip
    (tmp_path / "bee.png").mkdir()  # a folder, whatever it is called
    listing = listed(tmp_path)
    assert listing.files == [tmp_path / name for name in pictures]
    assert (listing.labels, listing.classes) == ([0, 0, 1], ("cat", "dog"))
    assert listing.passed_over == (
        "3 hidden (.ipynb_checkpoints, ...), 3 of the system (Thumbs.db, ...), 3 without a picture's ending "
        "(labels.csv, ...), 2 without pictures (ant, ...)"
    )


def test_classes_called_by_numbers_come_in_the_order_of_numbers(tmp_path: Path) -> None:
    write(tmp_path, *(f"{k}/x.png" for k in (0, 1, 2, 10)))
    listing = listed(tmp_path)
    assert listing.classes == ("0", "1", "2", "10")
    assert [file.parent.name for file in listing.files] == ["0", "1", "2", "10"]
    assert listing.labels == [0, 1, 2, 3]
    write(tmp_path, "b/x.png")
    assert listed(tmp_path).classes == ("0", "1", "10", "2", "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["1.png", "2.png", "a/3.png"],
            r"2 pictures beside class folders \(1\.png\) and 1 in them \(a/3\.png\)",
        ),
        (["a/b/1.png", "a/2.png"], r"a has 1 picture deeper than one folder \(.*a/b/1\.png\)"),
        (["a/b/c/d/1.png"], r"a has 1 picture deeper than one folder \(.*a/b/c/d/1\.png\)"),
        (["1.png", "a/b/2.png"], "deeper than one folder"),
    ],
)
def test_pictures_that_lie_elsewhere_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    write(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        listed(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/1.png", "data/a/2.png")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/again").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/gone.png").symlink_to(tmp_path / "nowhere.png")
    listing = listed(tmp_path / "data")
    assert [str(file.relative_to(tmp_path)) for file in listing.files] == [
        "data/a/2.png", "data/a/gone.png", "data/b/1.png",
    ]  # fmt: skip
    assert listing.passed_over == "1 linked to a folder above (again)"


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (["train/a/1.png", "2.png"], "train", r"1 picture beside train/ and test/ \(2\.png\)"),
        (["train/1.png", "bus/2.png"], "train", r"beside train/ and test/ \(bus/2\.png\)"),
        (["train/a/1.png", "test/a/b/2.png"], "test", "deeper than one folder"),
        (["train/a/1.png", "test/2.png"], "test", "test has no class folders, .*train has a"),
        (["train/1.png", "test/a/2.png"], "test", "test has classes that .*train has not: a"),
    ],
)
def test_a_split_that_leaves_pictures_out_is_refused(
    tmp_path: Path, names: list[str], split: str, message: str
) -> None:
    write(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        split_of(tmp_path, split)


def test_train_numbers_the_classes_of_test(tmp_path: Path) -> None:
    write(tmp_path, "train/2/1.png", "train/10/1.png", "train/1/1.png", "test/10/1.png", "valid/2/1.png")
    test = split_of(tmp_path, "test")
    assert (test.classes, test.labels) == (("1", "2", "10"), [2])
    assert test.passed_over == "1 neither train nor test (valid)"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.png")

    def refused(folder: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refused)  # root may read everything
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\)"):
        listed(tmp_path)
