"""Archives on their way into a model store, and out of it."""

import io
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from small_archives import archive

from genserve.operate.api import ManagementError, Server
from genserve.operate.offered import Offered, in_store, offered, set_aside
from genserve.operate.versions import Version, quiet


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def version(number: str, file: str, name: str = "a") -> Version:
    return Version(
        name=name, version=number, default=True, archive=file, continuous=True, target=1, queued=0, workers=()
    )


def test_a_file_is_looked_for_where_it_is_said_to_be_and_then_in_the_store(store: Path) -> None:
    server = Server(store=store)
    path = archive(store / "x.mar")
    assert offered(server, path) == offered(server, Path("x.mar")) == Offered("x.mar", "a", "1.0")
    other = archive(store.parent / "x.mar", version="2.0")
    assert offered(server, other) == Offered("a-2.0.mar", "a", "2.0", other)


def test_without_a_store_in_reach_the_server_is_given_the_name_alone(tmp_path: Path) -> None:
    assert offered(Server(), archive(tmp_path / "x.mar")) == Offered("x.mar", "a", "1.0")
    assert offered(Server(), Path("elsewhere.mar")) == Offered("elsewhere.mar")
    with pytest.raises(ManagementError, match=r"there is no file /no/such\.mar"):
        offered(Server(), Path("/no/such.mar"))


def torn(path: Path) -> None:
    buffer = io.BytesIO(archive(path, more=bytes(10_000)).read_bytes())
    path.write_bytes(buffer.getvalue()[:5_000])


def flipped(path: Path) -> None:
    data = bytearray(archive(path, more=b"x" * 10_000).read_bytes())
    data[data.index(b"x" * 100) + 50] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("hello"), "torn or no archive"),
        (torn, "torn or no archive"),
        (flipped, "torn or no archive"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "has no MAR-INF/MANIFEST.json"),
        (lambda path: archive(path, name="a/b"), "its model is called 'a/b', and a URL takes letters"),
        (lambda path: archive(path, version="1 0"), "its version is called '1 0'"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name_before_the_server_hears_of_it(
    make: Callable[[Path], object], words: str, store: Path
) -> None:
    make(store / "x.mar")
    with pytest.raises(ManagementError, match=words) as error:
        offered(Server(store=store), Path("x.mar"))
    assert "x.mar" in str(error.value)
    assert error.value.status == 400


def test_a_missing_file_is_said_with_what_the_store_has(store: Path) -> None:
    archive(store / "one.mar")
    with pytest.raises(ManagementError, match=r"no file two\.mar; .*store has one\.mar$") as error:
        offered(Server(store=store), Path("two.mar"))
    assert error.value.status == 404


def test_a_copy_goes_into_the_store_and_out_again_if_the_registration_fails(store: Path) -> None:
    server, path = Server(store=store), archive(store.parent / "new.mar", more=b"weights")
    new = offered(server, path)
    with pytest.raises(RuntimeError, match="True"), in_store(server, new, quiet):
        raise RuntimeError((store / "a-1.0.mar").read_bytes() == path.read_bytes())
    assert list(store.iterdir()) == []
    with in_store(server, new, quiet):
        pass
    with pytest.raises(RuntimeError), in_store(server, new, quiet):  # it was there before
        raise RuntimeError
    assert [p.name for p in store.iterdir()] == ["a-1.0.mar"]


def test_another_archive_of_that_version_in_the_store_is_left_alone(store: Path) -> None:
    server = Server(store=store)
    before = archive(store / "a-1.0.mar", more=b"old").read_bytes()
    new = offered(server, archive(store.parent / "new.mar", more=b"new"))
    with pytest.raises(ManagementError, match="is another archive than"), in_store(server, new, quiet):
        pass
    assert (store / "a-1.0.mar").read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(
    store: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    server = Server(store=store)
    new = offered(server, archive(store.parent / "new.mar", more=bytes(100_000)))
    with (
        full_disk(20_000),
        pytest.raises(ManagementError, match=r"a-1.0.mar: File too large"),
        in_store(server, new, quiet),
    ):
        pass
    assert list(store.iterdir()) == []


def test_the_archive_of_a_deleted_version_is_not_loaded_by_the_next_start(store: Path) -> None:
    server = Server(store=store)
    archive(store / "x.mar")
    set_aside(server, version("1.0", "x.mar"), quiet)
    assert [path.name for path in store.iterdir()] == ["a-1.0.mar.old"]
    assert offered(server, Path("a-1.0.mar.old")).file == "a-1.0.mar"  # and can be brought back


def test_an_archive_that_is_something_else_by_now_stays(store: Path) -> None:
    server = Server(store=store)
    archive(store / "x.mar", version="2.0")
    (store / "torn.mar").write_text("no archive")
    for gone in (version("1.0", "x.mar"), version("2.0", "x.mar", name="b"), version("1.0", "torn.mar")):
        set_aside(server, gone, quiet)
    set_aside(Server(), version("2.0", "x.mar"), quiet)
    assert sorted(path.name for path in store.iterdir()) == ["torn.mar", "x.mar"]
