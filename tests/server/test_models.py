"""`genserve models` on a real server: what is listed is so, and scaling and rolling lose nothing."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from archives import versioned
from real_server import ROOT, Server, wait_until

pytestmark = pytest.mark.server
CLIENTS = 8
NAME = "rolled"


def command(server: Server, *words: str) -> list[str]:
    options = ["--port", str(server.port), "--home", str(server.home)]
    return [sys.executable, str(ROOT / "scripts/models"), *words, *options]


def models(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """Run genserve models on a server."""
    return subprocess.run(command(server, *words), capture_output=True, text=True, check=False, timeout=200)


def done(server: Server, *words: str) -> str:
    """Run genserve models; return what it prints once it has ended well."""
    result = models(server, *words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def shown(server: Server) -> dict[str, dict[str, Any]]:
    """Return the versions of the model, by their number."""
    return {one["version"]: one for one in json.loads(done(server, "show", NAME, "--json"))}


@pytest.fixture
def rolled(server: Server, tmp_path: Path) -> Iterator[Server]:
    """A server that also serves the model `rolled` in version 1.0; afterwards it has nothing of it."""
    before = sorted(path.name for path in server.store.iterdir())
    done(server, "register", str(versioned(server.store / "diffusion.mar", tmp_path / "first.mar", "1.0")))
    yield server
    address = f"{server.management}/models/{NAME}"
    existing = httpx.get(f"{address}/all")
    if existing.status_code == 200:
        default = httpx.get(address).json()[0]["modelVersion"]
        numbers = [one["modelVersion"] for one in existing.json() if one["modelVersion"] != default]
        for number in [*numbers, default]:  # the host takes the default only as the last one
            assert httpx.delete(f"{address}/{number}", timeout=60).status_code == 200
    for path in server.store.iterdir():
        if path.name not in before:
            path.unlink()


def second(server: Server, tmp_path: Path, source: str = "diffusion.mar") -> str:
    return str(versioned(server.store / source, tmp_path / "second.mar", "2.0"))


class Crowd:
    """Clients that ask again and again, without a second try; what is not answered 200 is lost."""

    def __init__(self) -> None:
        self.answered: list[str] = []  # versions
        self.lost: list[str] = []
        self.longest = 0.0  # seconds

    def go_on(self) -> int:
        """Wait for a few answers more; return the number of those before."""
        n = len(self.answered)
        wait_until(lambda: len(self.answered) > n + CLIENTS or bool(self.lost), True)
        return n


@contextmanager
def crowd(server: Server, model: str = NAME) -> Iterator[Crowd]:
    """Let clients ask for small pictures until the block ends.

    Args:
        model: in the path, with its version or without.
    """
    clients, ended = Crowd(), threading.Event()

    def ask(seed: int) -> None:
        with server.client() as client:
            while not ended.is_set():
                began = time.monotonic()
                try:
                    answer = client.post(f"/predictions/{model}", json={"steps": 4, "seed": seed})
                    if answer.status_code == 200:
                        clients.answered.append(answer.headers["X-Model-Version"])
                    else:
                        clients.lost.append(f"{answer.status_code} {answer.text}")
                except httpx.HTTPError as error:
                    clients.lost.append(repr(error))
                clients.longest = max(clients.longest, time.monotonic() - began)

    threads = [threading.Thread(target=ask, args=[seed]) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def long_request(server: Server, model: str = NAME) -> Iterator[Callable[[], int]]:
    """Have a request open, which takes some seconds; the block gets a function that waits for its status."""
    statuses: list[int] = []

    def ask() -> None:
        with server.client() as client:
            body = {"steps": 1000, "num_samples": 16}
            statuses.append(client.post(f"/predictions/{model}", json=body).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_until(lambda: any(one["open"] for one in shown(server).values()), True)
        yield lambda: (thread.join(), statuses[0])[1]
    finally:
        thread.join()


def picture(server: Server, path: str = NAME, seed: int = 7) -> httpx.Response:
    with server.client() as client:
        return client.post(f"/predictions/{path}", json={"steps": 4, "seed": seed})


def test_list_and_show_have_what_is_there_and_what_is_open(rolled: Server) -> None:
    lines = [line.split() for line in done(rolled, "list").splitlines()]
    assert lines[0] == ["MODEL", "VERSION", "DEFAULT", "READY", "OPEN", "QUEUED"]
    assert ["diffusion", "1.0", "yes", "1/1", "0", "0"] in lines
    assert [NAME, "1.0", "yes", "1/1", "0", "0"] in lines
    with long_request(rolled):
        assert [NAME, "1.0", "yes", "1/1", "1", "0"] in [
            line.split() for line in done(rolled, "list").splitlines()
        ]
        text = done(rolled, "show", NAME)
        assert f"{NAME} 1.0 (default): {NAME}-1.0.mar, continuous, 1 of 1 worker ready, 1 open" in text
        (worker,) = shown(rolled)["1.0"]["workers"]
        assert [word for line in text.splitlines() for word in line.split()][-5:] == [
            str(worker["id"]), str(worker["pid"]), "READY", "busy", "1",
        ]  # fmt: skip
    assert json.loads(done(rolled, "list", "--json"))[0]["version"] == "1.0"


def test_what_was_registered_is_served_and_what_was_deleted_is_gone(rolled: Server, tmp_path: Path) -> None:
    assert picture(rolled).status_code == 200
    again = models(rolled, "register", f"{NAME}-1.0.mar")
    assert again.returncode == 1
    assert "rolled 1.0 is registered already; the server has 1.0 (default)" in again.stderr
    new = done(rolled, "register", second(rolled, tmp_path), "--workers", "0")
    assert f"it is not the default: requests reach it at /predictions/{NAME}/2.0" in new
    refused = models(rolled, "delete", NAME)
    assert "say which one by --version" in refused.stderr
    done(rolled, "delete", NAME, "--version", "2.0")
    assert "is now rolled-1.0.mar.old" in done(rolled, "delete", NAME)
    assert picture(rolled).status_code == 404
    assert f"there is no model {NAME}" in models(rolled, "show", NAME).stderr


def test_workers_that_do_not_come_up_leave_nothing_behind_and_it_is_said_why(
    rolled: Server, tmp_path: Path
) -> None:
    before = (done(rolled, "list"), sorted(rolled.store.iterdir()))
    no_luck = b"raise RuntimeError('no such luck')\n"
    broken = versioned(rolled.store / "diffusion.mar", tmp_path / "b.mar", "2.0", handler=no_luck)
    for words in (["register", str(broken)], ["roll", NAME, str(broken)]):
        result = models(rolled, *words)
        assert result.returncode == 1
        assert "a worker of rolled 2.0 does not come up: RuntimeError: no such luck" in result.stderr
        assert "Traceback" not in result.stderr
        assert (done(rolled, "list"), sorted(rolled.store.iterdir())) == before
    assert picture(rolled).headers["X-Model-Version"] == "1.0"


def test_scaling_up_and_down_under_load_loses_nothing(rolled: Server) -> None:
    with crowd(rolled) as clients:
        for workers in (2, 1):
            assert f"rolled 1.0 has {workers} worker" in done(rolled, "scale", NAME, str(workers))
            clients.go_on()
            assert len(shown(rolled)["1.0"]["workers"]) == workers
    assert clients.lost == []
    assert set(clients.answered) == {"1.0"}


def test_a_worker_that_is_stopped_ends_what_is_open_first_and_refuses_what_is_new(rolled: Server) -> None:
    with long_request(rolled) as status:
        output = done(rolled, "retire", NAME)
        assert status() == 200
    assert "it is answered 503" in output
    assert picture(rolled).status_code == 503
    assert shown(rolled)["1.0"]["target"] == 0
    done(rolled, "scale", NAME, "1")
    assert picture(rolled).status_code == 200


def test_a_batched_archive_ends_its_batch_before_it_is_deleted(rolled: Server, tmp_path: Path) -> None:
    done(rolled, "register", second(rolled, tmp_path, "diffusion-batched.mar"))
    with long_request(rolled, f"{NAME}/2.0") as status:
        assert shown(rolled)["2.0"]["open"] == 1
        done(rolled, "delete", NAME, "--version", "2.0")
        assert status() == 200
    assert list(shown(rolled)) == ["1.0"]


def test_workers_that_take_too_long_to_end_work_on(rolled: Server) -> None:
    with long_request(rolled):
        result = models(rolled, "scale", NAME, "0", "--wait", "0.5")
        assert result.returncode == 1
        assert "1 open request of rolled 1.0 after 0.5 s: nothing was changed" in result.stderr
    assert picture(rolled).status_code == 200
    assert not any(worker["duty"] != "NOTHING" for worker in shown(rolled)["1.0"]["workers"])


def test_a_roll_under_load_loses_nothing(rolled: Server, tmp_path: Path) -> None:
    with crowd(rolled) as clients:
        output = done(rolled, "roll", NAME, second(rolled, tmp_path), "--check-seed", "7")
        n = clients.go_on()
    assert clients.lost == []
    assert set(clients.answered) == {"1.0", "2.0"}
    assert set(clients.answered[n:]) == {"2.0"}
    assert "seed 7 gives the same picture from 1.0 and 2.0" in output
    assert list(shown(rolled)) == ["2.0"]
    assert sorted(path.name for path in rolled.store.glob("rolled*")) == [
        "rolled-1.0.mar.old",
        "rolled-2.0.mar",
    ]


def test_a_version_that_was_kept_is_rolled_back_to(rolled: Server, tmp_path: Path) -> None:
    done(rolled, "roll", NAME, second(rolled, tmp_path), "--keep")
    assert picture(rolled).headers["X-Model-Version"] == "2.0"
    assert picture(rolled, f"{NAME}/1.0").status_code == 200
    done(rolled, "rollback", NAME)
    assert picture(rolled).headers["X-Model-Version"] == "1.0"
    assert {one["version"]: one["default"] for one in shown(rolled).values()} == {"1.0": True, "2.0": False}


def test_a_version_that_draws_another_picture_does_not_become_the_default(
    rolled: Server, tmp_path: Path
) -> None:
    before = picture(rolled).content
    result = models(rolled, "roll", NAME, second(rolled, tmp_path, "consistency.mar"), "--check-seed", "7")
    assert result.returncode == 1
    assert "seed 7 gives another picture: 1.0 answers" in result.stderr
    assert "undone: rolled 2.0 is not registered, 1.0 is the default" in result.stdout
    assert picture(rolled).content == before
    assert [path.name for path in rolled.store.glob("rolled*")] == ["rolled-1.0.mar"]


def test_an_old_version_that_is_asked_for_by_its_number_stays(rolled: Server, tmp_path: Path) -> None:
    with crowd(rolled, f"{NAME}/1.0") as clients:
        result = models(rolled, "roll", NAME, second(rolled, tmp_path), "--wait", "1")
        assert result.returncode == 1
        assert "2.0 is the default, and 1.0 stays registered" in result.stderr
    assert clients.lost == []
    assert {one["version"]: one["default"] for one in shown(rolled).values()} == {"1.0": False, "2.0": True}
    assert "rolled 1.0 is deleted" in done(rolled, "delete", NAME, "--version", "1.0")


@pytest.mark.parametrize("line", ["registering", "2.0 is the default"])
def test_ctrl_c_undoes_a_roll(line: str, rolled: Server, tmp_path: Path) -> None:
    with crowd(rolled, f"{NAME}/1.0") as clients:  # so that 1.0 is never empty
        words = command(rolled, "roll", NAME, second(rolled, tmp_path))
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as roll:
            assert roll.stdout
            assert any(output.startswith(line) for output in roll.stdout)
            busy = models(rolled, "scale", NAME, "2")
            assert "rolled is being changed by another command" in busy.stderr
            roll.send_signal(signal.SIGINT)
            output, errors = roll.communicate(timeout=120)
    assert roll.returncode == 130
    assert errors == "interrupted\n"
    assert "undone: rolled 2.0 is not registered" in output
    assert clients.lost == []
    assert list(shown(rolled)) == ["1.0"]
    assert shown(rolled)["1.0"]["default"]
    assert [path.name for path in rolled.store.glob("rolled*")] == ["rolled-1.0.mar"]
