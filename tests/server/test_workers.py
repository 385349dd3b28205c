"""Several workers of a continuous archive on a real TorchServe: scaled, killed, retired, all under load."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_server import Server, wait_until

from genserve.commands.crowd import Crowd, pictures, settings
from genserve.crew import FILE, Crew, State
from genserve.operate import scaling
from genserve.operate.api import Server as Reached
from genserve.serving.hosts.anchors import STAY_S

pytestmark = pytest.mark.server
NAME = "crowded"
CLIENTS = 16


def workers(server: Server) -> list[dict[str, Any]]:
    """Return the workers of the model as the host lists them; the last are those it stops first."""
    listed: list[dict[str, Any]] = httpx.get(f"{server.management}/models/{NAME}").json()[0]["workers"]
    return listed


def put(server: Server, n: int) -> None:
    """Scale up as the host documents it, and wait until n workers are ready."""
    answer = httpx.put(f"{server.management}/models/{NAME}", params={"min_worker": n})
    assert answer.status_code == 202, answer.text
    wait_until(lambda: [worker["status"] for worker in workers(server)], ["READY"] * n, 120)


def scale(server: Server, n: int) -> None:
    """Scale as `genserve models scale` does: workers that go end what they have first."""
    scaling.scale(Reached(f"http://127.0.0.1:{server.port}", server.management), NAME, n)


def since(crowd: Crowd, began: float) -> Counter[str]:
    """Return how often each status has come since then, once every client has had one at least."""
    wait_until(lambda: sum(noted.at >= began for noted in crowd.asked_once) >= 2 * CLIENTS, True, 60)
    return Counter(noted.status for noted in crowd.asked_once if noted.at >= began)


@pytest.fixture
def crowd(server: Server) -> Crowd:
    """Clients that do not ask again, and the pictures that one worker alone draws for them."""
    tour = settings(CLIENTS)
    with server.client() as client:
        expected = [pictures(client.post("/predictions/diffusion", json=fields).json()) for fields in tour]
    address = f"http://127.0.0.1:{server.port}/predictions/{NAME}"
    return Crowd(address, list(zip(tour, expected, strict=True)), patient=0, plain=CLIENTS)


def test_scaling_up_down_and_to_nothing_under_load_loses_only_what_killed_workers_had(
    server: Server, crowd: Crowd
) -> None:
    with server.registered("diffusion.mar", NAME), crowd:
        began = time.monotonic()
        put(server, 2)
        put(server, 4)
        assert set(since(crowd, began)) == {"200"}

        for victim in (workers(server)[1], workers(server)[2]):
            began = time.monotonic()
            os.kill(int(victim["pid"]), signal.SIGKILL)
            died = since(crowd, began)
            assert set(died) <= {"200", "500", "507"}
            assert died["500"] + died["507"] <= CLIENTS
        wait_until(lambda: [worker["status"] for worker in workers(server)], ["READY"] * 4, 60)

        began = time.monotonic()
        scale(server, 1)
        assert set(since(crowd, began)) == {"200"}

        began = time.monotonic()
        scale(server, 0)
        wait_until(lambda: "503" in since(crowd, began), True)
        assert set(since(crowd, began)) == {"200", "503"}

        put(server, 2)
        wait_until(lambda: crowd.asked_once[-1].status, "200")
        assert set(since(crowd, time.monotonic() + 1)) == {"200"}  # who was refused before has asked again
    assert crowd.wrong == 0
    assert max(noted.seconds for noted in crowd.asked_once) < 30  # none hangs


def test_both_workers_work_and_their_counters_add_up(server: Server, crowd: Crowd) -> None:
    name = "genserve_answered_total"
    with server.registered("diffusion.mar", NAME):
        scale(server, 2)
        with crowd:
            crew = Crew(Path(f"/proc/{workers(server)[0]['pid']}/cwd/{FILE}"))
            busy: set[int] = set()

            def both_were_busy() -> bool:
                busy.update(member.worker for member in crew.members() if member.state is State.BUSY)
                return len(busy) == 2

            wait_until(both_were_busy, True)
            crew.close()
        assert {noted.status for noted in crowd.asked_once} == {"200"}

        def counted() -> float:
            start = f'{name}{{ModelName="{NAME}"'
            lines = httpx.get(f"{server.metrics}/metrics").text.splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith(start))

        before = counted()
        assert before > 0
        with server.client() as client:
            for seed in range(6):
                client.post(f"/predictions/{NAME}", json={"seed": seed, "steps": 2})
        wait_until(lambda: counted() - before >= 6, True, 10)


def test_lanes_follow_the_number_of_workers(server: Server) -> None:
    cores = len(os.sched_getaffinity(0))
    with server.registered("diffusion.mar", NAME), server.client() as client:

        def lanes() -> int:
            threads: int = client.post(f"/predictions/{NAME}", json={"task": "describe"}).json()["threads"]
            return threads

        wait_until(lanes, cores)
        scale(server, 2)
        for _ in range(6):  # whichever answers
            wait_until(lanes, max(1, cores // 2))
        scale(server, 1)
        wait_until(lanes, cores)


def test_an_idle_model_scales_down_at_once_however_long_it_was_idle(server: Server) -> None:
    with server.registered("diffusion.mar", NAME):
        scale(server, 3)
        time.sleep(STAY_S + 3)  # by then those that sit have gone to the host, where the porter has the lock
        began = time.monotonic()
        scale(server, 1)
        assert time.monotonic() - began < 10
