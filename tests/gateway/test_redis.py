"""Two gateways that share a real Redis: limits, jobs, and what happens when it goes away."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest
from program import background
from real_server import free_ports, wait_until
from redis import Redis
from redis.exceptions import ConnectionError as Away
from small_jobs import posted, wait_for, without_server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, Popen[bytes]]]:
    """The URL of a fresh Redis, and its process."""
    program = shutil.which("redis-server") or pytest.skip(
        "there is no redis-server: install it (Debian: apt-get install redis-server)"
    )
    port = free_ports(1)
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with background([program, *flags], stdout=DEVNULL) as process:
        client = Redis(port=port)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except Away:
                return False

        wait_until(answers, True)
        client.close()
        yield f"redis://127.0.0.1:{port}", process


def test_two_gateways_share_jobs(redis: tuple[str, Popen[bytes]], tmp_path: Path) -> None:
    flags = ("--redis", redis[0])
    one, two = without_server(tmp_path), without_server(tmp_path)
    with one.running(*flags), two.running(*flags), one.client() as first, two.client() as second:
        assert wait_for(second, posted(first), "done")["step"] == 20


def test_two_gateways_count_together_until_the_redis_goes_away(
    redis: tuple[str, Popen[bytes]], tmp_path: Path
) -> None:
    url, process = redis
    flags = ("--redis", url, "--requests", "20")
    one, two = without_server(tmp_path), without_server(tmp_path)
    with one.running(*flags), two.running(*flags), one.client() as first, two.client() as second:
        statuses = [(first, second)[k % 2].get("/models").status_code for k in range(24)]
        assert statuses.count(429) == 4
        assert 0 < int(first.get("/models").headers["Retry-After"]) <= 60
        process.kill()
        process.wait()
        assert first.get("/models").status_code != 429
    assert "limits are not kept" in (tmp_path / "log").read_text()
