"""Real training behind a real gateway: cancelled, resumed, killed in the middle, by one gateway or two."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from real_gateway import Gateway
from real_server import ROOT, answers, wait_until
from small_jobs import WAIT_S, posted, wait_for, without_server

from genserve.runs.directory import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * WAIT_S)]
LONG = {"epochs": 8, "max_batches_per_epoch": 50, "sample_every": 100_000}
STEPS = 400  # of it


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = without_server(tmp_path)
    try:
        yield gateway
    finally:
        for process in trainings(""):
            if any(str(tmp_path) in word for word in process.cmdline()):
                process.kill()


def trainings(id: str) -> list[psutil.Process]:
    """Return the programs that train this job."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"genserve", "train"} < {*(process.info["cmdline"] or [])}
        and id in " ".join(process.info["cmdline"])
    ]


def unbroken(directory: Path) -> bytes:
    """Return the weights that a run with the settings of a job ends with if nothing stops it."""
    other = directory.parent.parent / "unbroken"
    config = ["--config", str(directory / "settings.json"), "--output", str(other), "--threads", "1"]
    command = [sys.executable, "-m", "genserve", "train", "diffusion", *config]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return (other / directory.name / "weights.safetensors").read_bytes()


def started(gateway: Gateway) -> subprocess.Popen[bytes]:
    """Start a gateway that a test may kill."""
    gateway.folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(gateway.command(), cwd=ROOT, start_new_session=True)
    wait_until(lambda: answers(f"{gateway.url}/live"), True, 300)
    return process


def test_a_cancelled_job_stops_at_a_checkpoint_and_goes_on_from_it_to_the_same_weights(
    gateway: Gateway,
) -> None:
    with gateway.running(), gateway.client() as client:
        id = posted(client, **LONG)
        waiting = posted(client)
        directory = gateway.folder / "runs" / id
        wait_for(client, id, "running", step=50)
        assert client.get(f"/jobs/{waiting}").json()["state"] == "queued"  # one at a time
        assert psutil.Process(trainings(id)[0].pid).nice() == 10
        assert client.delete(f"/jobs/{id}").json()["stopping"]
        job = wait_for(client, id, "cancelled")
        assert job["step"] < job["steps"] == STEPS
        assert "stopped after" in client.get(f"/jobs/{id}/log").text
        wait_for(client, waiting, "done")

        assert client.post(f"/jobs/{id}/resume").status_code == 202
        with client.stream("GET", f"/jobs/{id}/events") as stream:
            events = [line for line in stream.iter_lines() if line.startswith("data: ")]
        steps = [event["step"] for event in map(json.loads, (e[6:] for e in events)) if "step" in event]
        assert (
            steps == [record["step"] for record in read_metrics(directory)] == list(range(50, STEPS + 1, 50))
        )
        assert json.loads(events[-1][6:])["state"] == "done"
        assert client.get(f"/jobs/{id}/samples.png").content.startswith(b"\x89PNG")
    assert (directory / "weights.safetensors").read_bytes() == unbroken(directory)


def test_a_job_survives_kills_of_the_gateway_and_of_its_program_and_is_never_trained_twice(
    gateway: Gateway,
) -> None:
    first = started(gateway)
    with gateway.client() as client:
        id = posted(client, **LONG)
        wait_for(client, id, "running", step=50)
    first.send_signal(signal.SIGKILL)
    first.wait()
    (orphan,) = trainings(id)
    orphan.suspend()  # else it may have ended before the next gateway is up
    with gateway.running(), gateway.client() as client:
        time.sleep(3)  # in which the gateway puts back what was cut off
        step = wait_for(client, id, "running")["step"]
        assert trainings(id) == [orphan]  # which has the locks
        orphan.kill()
        wait_for(client, id, "running", step=step + 50)
        for process in trainings(id):
            process.kill()
        job = wait_for(client, id, "done")
        assert job["step"] == job["steps"]
    directory = gateway.folder / "runs" / id
    assert (directory / "weights.safetensors").read_bytes() == unbroken(directory)


def test_a_gateway_that_ends_ends_its_training_and_the_next_one_goes_on(gateway: Gateway) -> None:
    with gateway.running(), gateway.client() as client:
        id = posted(client, **LONG)
        wait_for(client, id, "running", step=50)
    assert trainings(id) == []
    with gateway.running(), gateway.client() as client:
        wait_for(client, id, "running", "done", step=100)
        client.delete(f"/jobs/{id}")
        wait_for(client, id, "cancelled", "done")


def test_two_gateways_of_one_folder_share_its_jobs_and_one_takes_over_from_the_other(
    gateway: Gateway, tmp_path: Path
) -> None:
    first = started(gateway)
    other = without_server(tmp_path)
    with other.running(), other.client() as client:
        with httpx.Client(base_url=gateway.url, timeout=120) as near:
            ids = [posted(near, **LONG), posted(near)]
            job = wait_for(near, ids[0], "running", step=50)
        assert client.get(f"/jobs/{ids[0]}").json()["id"] == job["id"]
        assert len(trainings("")) == 1
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert client.delete(f"/jobs/{ids[0]}").json()["stopping"]  # of a program that is not its own
        wait_for(client, ids[0], "cancelled", "done")
        wait_for(client, ids[1], "done")


def test_a_program_that_refuses_its_data_fails_the_job_with_its_words(
    gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "data" / "mine").mkdir(parents=True)
    with gateway.running("--data", str(tmp_path / "data")), gateway.client() as client:
        data = {"name": "folder", "root": "mine"}
        id = posted(client, **{"data": data})
        wait_until(lambda: client.get(f"/jobs/{id}").json()["state"], "failed", WAIT_S)
        assert "no picture" in client.get(f"/jobs/{id}").json()["error"]
