"""The diffusion archive on a real TorchServe: what README and docs/api.md promise a client."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import archives
import httpx
import numpy as np
import pytest
from PIL import Image
from program import background
from real_server import ROOT, Server, free_ports

pytestmark = pytest.mark.server
URL = "/predictions/diffusion"
RUN = str(ROOT / "weights" / "diffusion-mnist")


def pixels(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content)).astype(int)


def post(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(URL, json=fields)


def test_no_body_gives_a_4_by_4_grid(server: Server) -> None:
    with server.client() as client:
        answer = client.post(URL)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(answer.content)).size == (118, 118)  # 4 * 28 and three gaps of 2
        assert answer.headers["X-Model-Version"] == "1.0"
        again = post(client, seed=int(answer.headers["X-Seed"]))
        assert again.content == answer.content
        assert client.get(URL).status_code == 200


def test_one_request_in_five_ways_of_asking(server: Server) -> None:
    fields = {"num_samples": "4", "seed": "1", "steps": "5"}
    with server.client() as client:
        answers = [
            post(client, num_samples=4, seed=1, steps=5),
            client.post(URL, data=fields),
            client.post(URL, files={k: (None, v) for k, v in fields.items()}),
            client.get("/diffusion/predict", params=fields),
            client.get("/invocations", params={"model_name": "diffusion", **fields}),
        ]
    assert [a.status_code for a in answers] == [200] * 5
    assert len({a.content for a in answers}) == 1


@pytest.mark.parametrize(
    ("content", "kind", "field"),
    [
        (b'{"num_samples":', "application/json", "body"),
        (b"[1]", "application/json", "body"),
        (b"[" * 60_000, "application/json", "body"),
        (b'{"\\ud800": 1}', "application/json", "?"),
        (
            b'{"num_samples": 4}',
            "application/x-www-form-urlencoded",
            "body",
        ),  # curl -d without a content type
        (b"\x89PNG\r\n", "image/png", "body"),
        (b'{"num_samples": 65}', "application/json", "num_samples"),
        (b'{"sampler": "euler"}', "application/json", "sampler"),
        (b'{"label": "cat"}', "application/json", "label"),
        (b'{"colour": 1}', "application/json", "colour"),
        (b"num_samples=four", "application/x-www-form-urlencoded", "num_samples"),
        (b"--x\r\nnot multipart", "multipart/form-data; boundary=y", "body"),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(
    server: Server, content: bytes, kind: str, field: str
) -> None:
    with server.client() as client:
        answer = client.post(URL, content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    error = answer.json()
    assert error["field"] == field
    assert error["message"]
    assert error["allowed"]


def test_a_part_sent_as_a_json_file_is_a_400(server: Server) -> None:
    with server.client() as client:
        for content in (b'{"a": 1}', b"30000000000"):
            answer = client.post(URL, files={"steps": ("j.json", content, "application/json")})
            assert (answer.status_code, answer.json()["field"]) == (400, "steps")
        assert post(client, steps=1).status_code == 200


def test_sixteen_of_the_largest_answers_at_once(server: Server) -> None:
    largest = {"num_samples": 64, "scale": 9, "steps": 1, "format": "npy"}
    with server.client() as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(client, **largest), range(16)))
        assert [a.status_code for a in answers] == [200] * 16
        assert len(answers[0].content) > 4_000_000
        assert client.post(URL, content=b"x" * 300_000).status_code == 413


def test_there_are_no_explanations_of_noise(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/explanations/diffusion")
    assert (answer.status_code, answer.json()["field"]) == (400, "task")


@pytest.mark.parametrize("model", ["diffusion", "diffusion-batched"])
def test_a_crowd_of_mixed_requests_gets_what_each_gets_alone(server: Server, model: str) -> None:
    url = f"/predictions/{model}"
    samplers = ("ddim", "ddpm", "heun", "dpmpp_2m")
    requests: list[dict[str, Any]] = [
        {"num_samples": 1 + k % 3, "seed": k, "steps": 2 + k % 7, "sampler": samplers[k % 4], "format": "npy"}
        for k in range(20)
    ]
    requests += [{"label": 5, "guidance": 2, "seed": 1, "num_samples": 2, "steps": 4, "format": "npy"}]
    bad = {"steps": 0}
    with server.client() as client, ThreadPoolExecutor(12) as pool:
        crowd = list(pool.map(lambda f: client.post(url, json=f), [*requests[:10], bad, *requests[10:]]))
        assert crowd.pop(10).status_code == 400
        for fields, answer in zip(requests, crowd, strict=True):
            assert abs(pixels(answer) - pixels(client.post(url, json=fields))).max() <= 1, fields


def test_a_worker_that_was_killed_comes_back_and_gives_the_same_image(server: Server) -> None:
    fields = {"num_samples": 1, "seed": 3, "steps": 3, "format": "npy"}
    with server.client() as client:
        before = pixels(post(client, **fields))
        worker = httpx.get(f"{server.management}/models/diffusion").json()[0]["workers"][0]
        os.kill(worker["pid"], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (answer := post(client, **fields)).status_code != 200:
            assert time.monotonic() < deadline, answer.text
    assert np.array_equal(pixels(answer), before)


def test_management_scales_the_workers_of_a_batched_archive(server: Server) -> None:
    def scale(n: int) -> int:
        url = f"{server.management}/models/diffusion-batched"
        done = httpx.put(url, params={"min_worker": n, "max_worker": n, "synchronous": "true"}, timeout=120)
        assert done.status_code in (200, 202), done.text
        return len(httpx.get(url).json()[0]["workers"])

    assert scale(2) == 2
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        seeds = range(8)
        few = {"num_samples": 1, "steps": 3, "format": "npy"}
        ask = lambda s: client.post("/predictions/diffusion-batched", json={**few, "seed": s})  # noqa: E731
        two = list(map(pixels, pool.map(ask, seeds)))
        assert scale(1) == 1
        one = [pixels(ask(s)) for s in seeds]
    assert all(abs(a - b).max() <= 1 for a, b in zip(two, one, strict=True))


def test_a_second_version_is_registered_and_removed(server: Server, tmp_path: Path) -> None:
    build = [
        sys.executable,
        str(ROOT / "scripts" / "build_archives"),
        "--version",
        "2.0",
        "--name",
        "diffusion",
    ]
    subprocess.run(
        [*build, "--run", str(ROOT / "weights" / "diffusion-mnist"), "--output", str(tmp_path)], check=True
    )
    archive = server.store / "diffusion-2.mar"
    archive.write_bytes((tmp_path / "diffusion.mar").read_bytes())
    with httpx.Client(base_url=server.management, timeout=120) as management, server.client() as client:
        added = management.post(
            "/models", params={"url": archive.name, "initial_workers": 1, "synchronous": "true"}
        )
        assert added.status_code == 200, added.text
        assert client.post(f"{URL}/2.0", json={"steps": 1}).headers["X-Model-Version"] == "2.0"
        assert client.post(URL, json={"steps": 1}).headers["X-Model-Version"] == "1.0"
        assert management.delete("/models/diffusion/2.0").status_code == 200
    archive.unlink()


def test_describe_and_health_and_metrics(server: Server) -> None:
    with server.client() as client:
        assert client.get("/ping").json() == {"status": "Healthy"}
        description = post(client, task="describe").json()
        assert (description["family"], description["mode"]) == ("diffusion", "continuous")
        batched = client.post("/predictions/diffusion-batched", json={"task": "describe"}).json()
        assert batched["mode"] == "batched"
    assert "ts_inference_requests_total" in httpx.get(f"{server.metrics}/metrics").text


def test_generate_killed_and_gone_on_writes_what_a_run_does(server: Server, tmp_path: Path) -> None:
    def generate(folder: str, *more: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        settings = ["--seed", "5", "--steps", "4", "--label", "2", "--num-images", "300"]
        command = [sys.executable, ROOT / "scripts" / "generate.py", *settings, *more]
        return background([*command, "--output-dir", tmp_path / folder], stderr=subprocess.DEVNULL)

    def drawn(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / folder).glob("[!.]*")}

    from_server = ["--server", f"http://127.0.0.1:{server.port}{URL}", "--in-flight", "5"]
    with generate("server", *from_server) as killed:
        while not drawn("server"):
            assert killed.poll() is None
            time.sleep(0.002)
        killed.kill()
    assert len(drawn("server")) < 300
    with generate("server", *from_server) as again, generate("run", "--run", RUN) as unbroken:
        assert (again.wait(), unbroken.wait()) == (0, 0)
    assert drawn("server").keys() == {"settings.json"} | {f"{k:05}.png" for k in range(1, 301)}
    assert drawn("server") == drawn("run")


def test_generate_finds_out_how_much_a_server_takes_at_a_time(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate.py"), "--num-images", "40", "--steps", "2"]
    for number, source in enumerate((["--server", f"http://127.0.0.1:{server.port}{URL}"], ["--run", RUN])):
        folder = ["--output-dir", str(tmp_path / str(number)), "--shards", "25", "--seed", "1"]
        subprocess.run([*command, *source, *folder], check=True)
    served, local = ({p.name: p.read_bytes() for p in (tmp_path / k).iterdir()} for k in "01")
    assert served.keys() == {"settings.json", "shard-00000.tar", "shard-00001.tar"}
    assert served == local


def test_generate_refuses_a_folder_that_was_drawn_otherwise(server: Server, tmp_path: Path) -> None:
    def generate(*more: str) -> subprocess.CompletedProcess[str]:
        address = f"http://127.0.0.1:{server.port}{URL}"
        command = [sys.executable, str(ROOT / "scripts" / "generate.py"), "--server", address, "--steps", "1"]
        return subprocess.run(
            [*command, "--output-dir", str(tmp_path), *more], capture_output=True, text=True, check=False
        )

    assert generate("--num-images", "1").returncode == 0
    assert "label was None, is 3" in generate("--num-images", "2", "--label", "3").stderr
    written = json.loads((tmp_path / "settings.json").read_text())
    written["drawn"]["weights"] = "of another model"
    (tmp_path / "settings.json").write_text(json.dumps(written))
    assert "was drawn otherwise" in generate("--num-images", "2").stderr
    assert [p.name for p in tmp_path.glob("*.png")] == ["00001.png"]


def test_a_second_start_says_what_is_in_the_way(server: Server, tmp_path: Path) -> None:
    again = server.serve("start")
    assert "already running" in again.stdout
    assert "ready after" in again.stdout
    moved = Server(free_ports(5), server.home, server.store).serve("start")
    assert f"runs on port {server.port}: ./scripts/serve stop first" in moved.stderr
    other = Server(server.port, tmp_path, server.store).serve("start")
    assert other.returncode == 1
    assert f"port {server.port} is in use" in other.stderr
    empty = Server(free_ports(5), tmp_path, tmp_path).serve("start")
    assert "run ./scripts/build_archives first" in empty.stderr
    assert "--port must be in 1 to 65531" in Server(65533, tmp_path, server.store).serve("start").stderr


def test_stop_leaves_a_stranger_alone_whose_number_is_the_server_s(server: Server, tmp_path: Path) -> None:
    with background(["sleep", "60"]) as stranger:
        record = {"pid": stranger.pid, "born": "long ago", "port": 1, "store": "", "temporary": str(tmp_path)}
        (tmp_path / "server.json").write_text(json.dumps(record))
        assert "not running" in Server(server.port, tmp_path, server.store).serve("stop").stdout
        assert stranger.poll() is None


def test_a_server_with_a_long_home_runs(server: Server, tmp_path: Path) -> None:
    home = tmp_path / ("a-folder-with-a-name-of-fifty-characters-and-more-" * 3)
    other = Server(free_ports(5), home, server.store)
    with other.running():
        with other.client() as client:
            assert post(client, steps=1).status_code == 200
        assert "stopped" in other.serve("stop").stdout
        assert other.processes() == []
    assert "not running" in other.serve("stop").stdout


def test_a_start_that_fails_leaves_no_process_behind(tmp_path: Path) -> None:
    archives.with_handler(tmp_path, "waits", archives.NEVER_LOADS)
    endless = Server(free_ports(5), tmp_path / "home", tmp_path)
    with pytest.raises(subprocess.TimeoutExpired), endless.running(start_s=15):
        pass
    assert "org.pytorch.serve" in (tmp_path / "home/logs/ts_log.log").read_text()  # Java was there
    assert endless.processes() == []


def test_the_worker_runs_the_archive_and_not_the_work_tree(server: Server) -> None:
    worker = httpx.get(f"{server.management}/models/diffusion").json()[0]["workers"][0]
    process = Path(f"/proc/{worker['pid']}")
    if not process.exists():
        pytest.skip("only Linux shows another process's environment")
    environment = dict(v.split(b"=", 1) for v in (process / "environ").read_bytes().split(b"\0") if b"=" in v)
    unpacked = os.readlink(process / "cwd")  # first on the worker's path
    assert unpacked.startswith(str(server.home / "tmp"))
    assert environment[b"PYTHONPATH"].decode().split(":") == [unpacked, ""]  # ours was set, and is gone
