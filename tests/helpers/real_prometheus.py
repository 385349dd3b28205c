"""A real Prometheus for tests, which scrapes a real server."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from program import background
from real_server import free_ports, wait_until

SCRAPE = "250ms"


def installed(name: str) -> str:
    """Return the path of prometheus or promtool; skip the test where it is not installed."""
    return shutil.which(name) or pytest.skip(
        f"there is no {name}: install it (Debian: apt-get install prometheus)"
    )


class Prometheus:
    """What Prometheus answers.

    Args:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30)

    def close(self) -> None:
        self._client.close()

    def api(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(path, params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query: str) -> dict[tuple[str, str], float]:
        """Return the values of a query now, by model name and version, which are empty where it has none."""
        results = self.api("/query", query=query)["result"]
        metrics = [(result["metric"], float(result["value"][1])) for result in results]
        return {(m.get("ModelName", ""), m.get("ModelVersion", "")): value for m, value in metrics}


@contextlib.contextmanager
def scraping(target: int, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a port of this machine four times a second, until the block ends."""
    program, port = installed("prometheus"), free_ports(1)
    config = folder / "prometheus.yml"
    jobs = [{"job_name": "genserve", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]
    intervals = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE}
    config.write_text(yaml.safe_dump({"global": intervals, "scrape_configs": jobs}))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    log = folder / "prometheus.log"
    with log.open("wb") as output, contextlib.closing(Prometheus(port)) as prometheus:

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(httpx.TransportError, ValueError):
                return prometheus.ask("up") == {("", ""): 1}
            return False

        address = f"--web.listen-address=127.0.0.1:{port}"
        with background([program, *flags, address], stdout=output, stderr=output) as process:
            wait_until(up, True)
            yield prometheus
