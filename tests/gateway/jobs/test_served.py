"""From POST /jobs to pictures of the new model, by a real server, while others draw with other models."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import packed, versioned
from real_gateway import Gateway
from real_server import Server
from small_jobs import WAIT_S, posted, wait_for

from genserve.gateway.jobs.serving import serve, successor
from genserve.operate.api import Server as Addresses
from genserve.operate.api import local_server
from genserve.operate.deletion import delete
from genserve.operate.registration import register
from genserve.operate.versions import models, quiet, versions

pytestmark = [pytest.mark.server, pytest.mark.timeout(3 * WAIT_S)]


@contextlib.contextmanager
def drawing(server: Server, *names: str) -> Iterator[list[int]]:
    """Have a client draw with models again and again, and collect how it is answered."""
    statuses: list[int] = []
    ended = threading.Event()

    def draw() -> None:
        with server.client() as client:
            while not ended.wait(0.3):
                for name in names:
                    answer = client.post(f"/predictions/{name}", json={"steps": 2, "seed": len(statuses)})
                    statuses.append(answer.status_code)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def addresses(server: Server) -> Addresses:
    return local_server(server.port, server.home)


def test_a_job_ends_as_a_model_that_draws_and_the_next_one_takes_its_place_without_a_lost_request(
    server: Server, gateway: Gateway, addresses: Addresses
) -> None:
    with gateway.client() as client:
        with drawing(server, "diffusion") as others:
            id = posted(client, "mine")
            job = wait_for(client, id, "done")
        assert (job["version"], job["before"]) == ("1.0", "")
        fields = {"seed": 1, "steps": 4, "num_samples": 1}
        first = client.post("/predictions/mine", json=fields)
        assert (first.status_code, first.content[:4]) == (200, b"\x89PNG")

        with drawing(server, "diffusion", "mine") as own:
            job = wait_for(client, posted(client, "mine", seed=1), "done")
        assert (job["version"], job["before"]) == ("2.0", "1.0")
        second = client.post("/predictions/mine", json=fields)
        assert second.content != first.content
        assert {*others, *own} == {200}
        assert [one.version for one in versions(addresses, "mine")] == ["2.0"]
        assert not (gateway.folder / "runs" / id / "archive").exists()
    delete(addresses, "mine")


def test_a_model_of_words_is_tried_by_words_and_takes_the_place_of_the_last_one(
    gateway: Gateway, addresses: Addresses
) -> None:
    body = {"program": "ngram", "config": "ngram-austen", "serve_as": "counts"}
    with gateway.client() as client:
        for version in ("1.0", "2.0"):
            posting = client.post("/jobs", json=body | {"overrides": {"min_count": 1 + int(version[0])}})
            assert posting.status_code == 202, posting.text
            assert wait_for(client, posting.json()["id"], "done")["version"] == version
            answer = client.post("/predictions/counts", json={"seed": 1, "length": 5})
            assert answer.json()["texts"][0]["n_tokens"] == 5
    delete(addresses, "counts")


def test_registering_that_was_cut_off_is_ended_by_the_next_try(addresses: Addresses, tmp_path: Path) -> None:
    plain = packed(tmp_path)
    archives = {v: versioned(plain, tmp_path / f"{v}.mar", v, "cut") for v in ("1.0", "2.0")}
    assert successor(addresses, "cut") == ("1.0", "")
    addresses.call("POST", url=_copied(addresses, archives["1.0"]), initial_workers=0, synchronous="false")
    serve(addresses, "cut", "1.0", "", archives["1.0"], quiet)  # no worker had loaded it
    serve(addresses, "cut", "1.0", "", archives["1.0"], quiet)  # nothing was missing
    assert successor(addresses, "cut") == ("2.0", "1.0")

    register(addresses, archives["2.0"])  # beside the old one, and not yet the default
    serve(addresses, "cut", "2.0", "1.0", archives["2.0"], quiet)
    assert [(one.version, one.default) for one in versions(addresses, "cut")] == [("2.0", True)]

    register(addresses, archives["1.0"])
    serve(addresses, "cut", "2.0", "1.0", archives["2.0"], quiet)  # the old one was to be deleted
    assert [one.version for one in versions(addresses, "cut")] == ["2.0"]
    delete(addresses, "cut")
    assert "cut" not in models(addresses)
    assert successor(addresses, "cut")[0] == "3.0"  # archives that were put aside keep their versions


def _copied(addresses: Addresses, archive: Path) -> str:
    assert addresses.store is not None
    name = f"cut-{archive.stem}.mar"
    (addresses.store / name).write_bytes(archive.read_bytes())
    return name
