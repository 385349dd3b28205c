"""The version that was made the default is the default after a restart, too."""

from pathlib import Path

from small_archives import archive
from stand_in import standing_in, version

from genserve.operate.api import Server
from genserve.operate.chosen import choose, chosen, forget
from genserve.operate.deletion import remove
from genserve.operate.management_calls import Call, answer
from genserve.operate.rolling import rollback
from genserve.operate.store import Archive, outshone, survey
from genserve.operate.versions import version_of


def two(store: Path) -> list[Archive]:
    """Write two versions of a model; return the archives in the order in which a start loads them."""
    archive(store / "a.mar", version="1.0")
    archive(store / "a-2.0.mar", version="2.0")
    return survey(store)[0]


def test_without_a_choice_the_newest_is_the_default_and_with_one_that(tmp_path: Path) -> None:
    assert [one.version for one in two(tmp_path)] == ["2.0", "1.0"]
    assert outshone(survey(tmp_path)[0]) == []
    choose(tmp_path, "a", "1.0")
    archives = survey(tmp_path)[0]
    assert [one.version for one in archives] == ["1.0", "2.0"]
    assert outshone(archives) == [(archives[0], archives[1])]
    choose(tmp_path, "a", "3.0")  # is not there
    assert [one.version for one in survey(tmp_path)[0]] == ["2.0", "1.0"]


def test_a_choice_is_forgotten_with_its_version_alone(tmp_path: Path) -> None:
    assert chosen(tmp_path, "a") == ""
    choose(tmp_path, "a", "1.0")
    forget(tmp_path, "a", "2.0")
    assert chosen(tmp_path, "a") == "1.0"
    forget(tmp_path, "a", "1.0")
    assert (chosen(tmp_path, "a"), list(tmp_path.iterdir())) == ("", [])


def test_rollback_management_and_deletion_keep_the_choice_in_the_store(tmp_path: Path) -> None:
    old, new = version(number="1.0"), version(number="2.0") | {"modelUrl": "a-2.0.mar"}
    answers = {
        "GET /models/a": (200, [new]),
        "GET /models/a/all": (200, [old, new]),
        "PUT /models/a/1.0/set-default": (200, {"status": "done"}),
        "PUT /models/a/2.0/set-default": (200, {"status": "done"}),
        "PUT /models/a/9.0/set-default": (404, {"message": "Model version: 9.0 does not exist"}),
        "DELETE /models/a/2.0": (200, {"status": "done"}),
    }
    two(tmp_path)
    with standing_in(answers) as host:
        server = Server(management=host.url, store=tmp_path)
        rollback(server, "a", smoke=None)
        assert chosen(tmp_path, "a") == "1.0"
        for number in ("2.0", "9.0"):
            answer(server, Call("PUT", f"/models/a/{number}/set-default", {}, {}))
        assert chosen(tmp_path, "a") == "2.0"
        remove(server, version_of(server, "a", "2.0"), lambda line: None)
    assert chosen(tmp_path, "a") == ""


def test_a_store_that_cannot_be_written_is_said_and_the_version_is_the_default(tmp_path: Path) -> None:
    answers = {
        "GET /models/a": (200, [version(number="2.0")]),
        "GET /models/a/all": (200, [version(number="1.0"), version(number="2.0")]),
        "PUT /models/a/1.0/set-default": (200, {"status": "done"}),
    }
    lines: list[str] = []
    with standing_in(answers) as host:
        server = Server(management=host.url, store=tmp_path / "nowhere")
        assert rollback(server, "a", smoke=None, say=lines.append).version == "1.0"
    assert lines[0] == "1.0 is the default of a"
    assert lines[1].startswith("the next start of the server does not know that: ")
