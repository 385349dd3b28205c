"""`genserve models` where the host is a stand-in: what it says, what it refuses, what it undoes."""

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from small_archives import archive
from stand_in import Answer, StandIn, standing_in, version

from genserve.operate.api import ManagementError, Server
from genserve.operate.deletion import delete
from genserve.operate.models import command_line, run
from genserve.operate.registration import held, register
from genserve.operate.rolling import compare, roll, rollback
from genserve.operate.scaling import scale
from genserve.operate.versions import models, quiet, version_of, versions
from genserve.operate.waiting import wait_empty


def answers(*entries: dict[str, Any], default: int = 0) -> dict[str, Any]:
    """Return what a host answers that has these versions of one model."""
    name = entries[0]["modelName"]
    return {
        "GET /models": (200, {"models": [{"modelName": name, "modelUrl": f"{name}.mar"}]}),
        f"GET /models/{name}": (200, [entries[default]]),
        f"GET /models/{name}/all": (200, list(entries)),
    }


def changing(host: StandIn) -> list[str]:
    """Return the calls that change something."""
    return [call for call in host.calls if not call.startswith("GET")]


def test_models_of_several_pages_are_all_listed() -> None:
    pages = [{"models": [{"modelName": "a"}], "nextPageToken": "1"}, {"models": [{"modelName": "b"}]}]
    with standing_in({"GET /models": lambda: (200, pages.pop(0))}) as host:
        assert models(Server(management=host.url)) == ["a", "b"]
    assert [call.rpartition("=")[2] for call in host.calls] == ["0", "1"]


def test_what_is_open_is_not_known_without_the_table_and_none_without_a_ready_worker() -> None:
    with standing_in(answers(version(), version(number="2.0", ready=0, loading=1))) as host:
        one, two = versions(Server(management=host.url), "a")
    assert (one.default, one.ready, one.open, one.empty) == (True, 1, None, None)
    assert (two.default, two.ready, two.open, two.empty) == (False, 0, 0, True)


def test_a_version_that_does_not_exist_is_said_with_those_that_do() -> None:
    with (
        standing_in(answers(version(), version(number="2.0"))) as host,
        pytest.raises(ManagementError, match=r"a has no version 3; it has 1\.0 \(default\), 2\.0") as error,
    ):
        version_of(Server(management=host.url), "a", "3")
    assert error.value.status == 404


def test_without_the_table_a_version_is_empty_after_the_deadline_if_the_queue_is() -> None:
    began, lines = time.monotonic(), list[str]()
    with standing_in(answers(version())) as host:
        one = version_of(Server(management=host.url), "a")
        wait_empty(Server(management=host.url), one, 0.5, lines.append)
    assert time.monotonic() - began >= 0.5
    assert lines == ["waiting for what is open in a 1.0 (its table of workers is not in reach)"]


def test_a_queue_that_does_not_end_is_a_problem_and_nothing_is_deleted() -> None:
    with standing_in(answers(version(queued=3))) as host:
        with pytest.raises(ManagementError, match=r"3 in the queue .* after 0\.3 s") as error:
            delete(Server(management=host.url), "a", wait_s=0.3)
        assert error.value.status == 504
        assert changing(host) == []


def test_a_version_with_others_beside_it_is_deleted_by_its_number_unless_it_is_the_default() -> None:
    with standing_in(answers(version(), version(number="2.0", ready=0))) as host:
        host.answers["DELETE /models/a/2.0"] = (200, {"status": "gone"})
        server = Server(management=host.url)
        with pytest.raises(ManagementError, match="say which one by --version"):
            delete(server, "a")
        with pytest.raises(ManagementError, match=r"1\.0 is the default of a, .* rollback a --version"):
            delete(server, "a", "1.0")
        assert changing(host) == []
        assert delete(server, "a", "2.0").version == "2.0"
        assert changing(host) == ["DELETE /models/a/2.0"]


@pytest.mark.parametrize("workers", [-1, 65])
def test_a_number_of_workers_that_is_nonsense_is_refused_before_anything_is_sent(workers: int) -> None:
    server = Server(management="http://127.0.0.1:1")
    for change in (
        lambda: scale(server, "a", workers),
        lambda: register(server, Path("x.mar"), workers),
    ):
        with pytest.raises(ManagementError, match=f"0 to 64 workers, got {workers}"):
            change()


def test_two_commands_do_not_change_a_model_at_a_time() -> None:
    server = Server(management="http://127.0.0.1:1")
    with held(server, "a"), held(server, "b"):
        with pytest.raises(ManagementError, match="a is being changed by another command") as error:
            scale(server, "a", 1)
        assert error.value.status == 409
    with held(server, "a"):
        pass


def test_rollback_needs_another_version_that_is_ready() -> None:
    two, three = version(number="2.0", ready=0, loading=1), version(number="3.0")
    for entries, words in (
        ([version()], r"no version but 1\.0"),
        ([version(), two], r"a 2\.0 has no worker that is ready: scale it first"),
        ([version(), two, three], r"a has the versions 1\.0 \(default\), 2\.0, 3\.0: say which"),
    ):
        with standing_in(answers(*entries)) as host, pytest.raises(ManagementError, match=words):
            rollback(Server(management=host.url), "a")
        assert changing(host) == []


class Host:
    """A host with one version, whose workers are ready, or end as they load, or never do."""

    def __init__(self, new: dict[str, Any]) -> None:
        self.old, self.new, self.registered = version(), new, False

    def register(self) -> Answer:
        self.registered = True
        return 202, {"status": "Processing worker updates..."}

    def delete(self) -> Answer:
        self.registered = False
        return 200, {"status": "gone"}

    @property
    def answers(self) -> dict[str, Any]:
        return answers(self.old) | {
            "GET /models/a/all": lambda: (200, [self.old, *([self.new] if self.registered else [])]),
            "POST /models": self.register,
            "PUT /models/a/2.0": (202, {"status": "Processing worker updates..."}),
            "DELETE /models/a/2.0": self.delete,
        }


def test_a_worker_that_dies_as_it_loads_ends_a_roll_which_is_undone(new_archive: Path) -> None:
    host = Host(version(number="2.0", ready=0, loading=1))
    pids = iter(range(2**22, 2**22 + 10))
    lines: list[str] = []

    def all_versions() -> Answer:
        host.new["workers"][0]["pid"] = next(pids) if host.registered else -1
        return 200, [host.old, *([host.new] if host.registered else [])]

    with standing_in(host.answers | {"GET /models/a/all": all_versions}) as stand_in:
        server = Server(management=stand_in.url)
        with pytest.raises(ManagementError, match=r"a worker of a 2\.0 does not come up") as error:
            roll(server, "a", new_archive, say=lines.append)
    assert error.value.status == 502
    assert changing(stand_in)[-1] == "DELETE /models/a/2.0"
    assert not any("set-default" in call for call in stand_in.calls)
    assert lines[-1] == "undone: a 2.0 is not registered"


def test_workers_that_never_load_end_a_roll_in_time(new_archive: Path) -> None:
    host = Host(version(number="2.0", ready=0, loading=1))
    with (
        standing_in(host.answers) as stand_in,
        pytest.raises(ManagementError, match=r"0 of 1 worker of a 2\.0 after 0\.3 s") as error,
    ):
        roll(Server(management=stand_in.url), "a", new_archive, ready_s=0.3)
    assert error.value.status == 504
    assert not host.registered


def test_a_roll_whose_smoke_request_fails_is_undone(new_archive: Path) -> None:
    host = Host(version(number="2.0"))
    host.old["workers"] = []  # nothing is open in it
    smoke = {"POST /predictions/a/2.0": (500, {"error": "broken"})}
    with standing_in(host.answers | smoke) as stand_in:
        server = Server(predictions=stand_in.url, management=stand_in.url)
        with pytest.raises(ManagementError, match=r'answers {"steps": 1} with 500: {"error": "broken"}'):
            roll(server, "a", new_archive, smoke={"steps": 1})
    assert not host.registered
    assert not any("set-default" in call for call in stand_in.calls)


@pytest.mark.parametrize(
    ("other", "same"), [(b"\x80\x01\xfe", True), (b"\x83\x00\xff", False), (b"\x81", False)]
)
def test_pixels_may_round_otherwise_in_company(other: bytes, same: bool) -> None:
    pixels = {"POST /predictions/a/1.0": (200, b"\x81\x00\xff"), "POST /predictions/a/2.0": (200, other)}
    with standing_in(answers(version(), version(number="2.0")) | pixels) as stand_in:
        server = Server(predictions=stand_in.url, management=stand_in.url)
        refused = pytest.raises(ManagementError, match="gives another picture")
        with contextlib.nullcontext() if same else refused:
            compare(server, *versions(server, "a"), {"seed": 7}, quiet)


def test_an_undo_that_fails_is_said_and_does_not_hide_why(new_archive: Path) -> None:
    host, lines = Host(version(number="2.0")), list[str]()
    smoke = {"POST /predictions/a/2.0": (500, {"error": "broken"})}
    deaf = {"DELETE /models/a/2.0": (500, {"message": "java.util.ConcurrentModificationException"})}
    with standing_in(host.answers | smoke | deaf) as stand_in:
        server = Server(predictions=stand_in.url, management=stand_in.url)
        with pytest.raises(ManagementError, match="broken"):
            roll(server, "a", new_archive, smoke={"steps": 1}, say=lines.append)
    assert "not undone, `genserve models show a`" in lines[-1]


def test_a_roll_of_another_model_s_archive_is_refused_before_anything_is_sent(new_archive: Path) -> None:
    with pytest.raises(ManagementError, match=r"is an archive of a, not of b: build it with --name b"):
        roll(Server(management="http://127.0.0.1:1"), "b", new_archive)


def test_a_version_that_is_registered_is_not_registered_again(new_archive: Path) -> None:
    with standing_in(answers(version(), version(number="2.0"))) as host:
        with pytest.raises(ManagementError, match=r"a 2\.0 is registered already; the server has 1\.0 \(def"):
            register(Server(management=host.url), new_archive)
        assert changing(host) == []


@pytest.fixture
def new_archive(tmp_path: Path) -> Path:
    return archive(tmp_path / "new.mar", version="2.0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scale", "a", "two"], "argument workers: invalid int value: 'two'"),
        (["scale", "a"], "the following arguments are required: workers"),
        (["list", "--port", "0"], "--port must be in 1 to 65534, got 0"),
        (["roll", "a", "b.mar", "--smoke", "[4]"], "must be a JSON object like"),
        (["grow", "a"], "invalid choice: 'grow'"),
    ],
)
def test_a_flag_that_is_nonsense_is_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command_line(words)
    assert message in capsys.readouterr().err


def test_without_a_smoke_request_a_seed_has_nothing_to_be_compared_by(new_archive: Path) -> None:
    options = command_line(["roll", "a", str(new_archive), "--smoke", ""])
    assert options.smoke is None
    with pytest.raises(ManagementError, match="compared by the smoke request: there is none"):
        roll(Server(), "a", new_archive, smoke=options.smoke, check_seed=7)


def test_a_failure_ends_the_program_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        run(["list", "--port", "1", "--home", str(tmp_path)])
    assert str(end.value.code).startswith("error: http://127.0.0.1:2 does not answer")
