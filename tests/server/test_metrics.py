"""The metrics of a real server in a real Prometheus: the dashboard has data, and what is gone falls to 0."""

import json
import math
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from archives import versioned
from real_prometheus import Prometheus, installed, scraping
from real_server import ROOT, Server, wait_until

pytestmark = pytest.mark.server
WINDOW_S = 300  # longer than these tests take
LONG = {"num_samples": 16, "steps": 1000, "stream": True}
FEWER = LONG | {"num_samples": 6}  # two of them fit into the deadline on a busy machine, too
BOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text())
PANELS = {
    panel["title"]: {
        target["legendFormat"].replace("{{ModelName}} {{ModelVersion}}", "").strip(): target["expr"]
        for target in panel["targets"]
    }
    for panel in BOARD["panels"]
}


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen the model `fresh`, and no event of it."""
    with scraping(server.port + 2, tmp_path_factory.mktemp("prometheus")) as prometheus:
        server.register("diffusion.mar", "fresh")
        first = "genserve_answered_total{ModelName='fresh'}"
        wait_until(lambda: prometheus.ask(first), {("fresh", "1.0"): 0})
        yield prometheus
    httpx.delete(f"{server.management}/models/fresh/1.0", timeout=60)


def drawn(prometheus: Prometheus, expression: str, model: str = "fresh") -> dict[tuple[str, str], float]:
    """Return what a panel of the dashboard shows of a model."""
    return prometheus.ask(expression.replace("$__rate_interval", f"{WINDOW_S}s").replace("$model", model))


def test_every_panel_of_the_dashboard_has_data_after_one_request_of_each_kind(
    server: Server, prometheus: Prometheus
) -> None:
    url = "/predictions/fresh"
    total = "genserve_{}_total{{ModelName='{}'}}".format
    answered = prometheus.ask(total("answered", "energy"))["energy", "1.0"]  # by other tests
    with server.client() as client:
        assert client.post(url, json={"num_samples": 2, "steps": 10}).status_code == 200
        assert client.post(url, json={"num_samples": 0}).status_code == 400
        with client.stream("POST", url, json=LONG) as answer:
            next(answer.iter_raw())  # and hangs up
        assert client.post(url, json={"num_samples": 3, "steps": 20, "stream": True}).status_code == 200
        assert client.post("/predictions/energy", json={"num_samples": 1, "steps": 10}).status_code == 200
        assert client.post("/predictions/unknown").status_code == 404

    events = {"answered": 2, "rejected": 1, "refused": 0, "failed": 0, "late": 0, "cancelled": 1}
    wait_until(lambda: {e: prometheus.ask(total(e, "fresh"))["fresh", "1.0"] for e in events}, events)
    # the last line that a worker tells each time
    wait_until(lambda: prometheus.ask("genserve_request_seconds_count{ModelName='fresh'}")["fresh", "1.0"], 2)
    wait_until(lambda: prometheus.ask(total("answered", "energy"))["energy", "1.0"], answered + 1)
    wait_until(
        lambda: drawn(prometheus, PANELS["Time of a request"]["p50"], "energy")["energy", "1.0"] > 0, True
    )

    # rates show the first event of a kind: it was told as 0 before
    for event, n in events.items():
        rate = drawn(prometheus, PANELS["Requests per second, by outcome"][event])
        assert rate.keys() == {("fresh", "1.0")}
        assert rate["fresh", "1.0"] * WINDOW_S == pytest.approx(n, rel=0.1)
    images = drawn(prometheus, PANELS["Images per second"][""])["fresh", "1.0"]
    assert images * WINDOW_S == pytest.approx(5, rel=0.1)
    times = PANELS["Time of a request"]
    p50, p95, p99 = (drawn(prometheus, times[q])["fresh", "1.0"] for q in ("p50", "p95", "p99"))
    assert 0 < p50 <= p95 <= p99 < 600
    assert 0 < drawn(prometheus, PANELS["Share of the time in the model"][""])["fresh", "1.0"] <= 1
    assert 1 <= drawn(prometheus, PANELS["Images in an evaluation"][""])["fresh", "1.0"] <= 32

    for expression in (expression for panel in PANELS.values() for expression in panel.values()):
        for model in ("fresh", "energy"):
            values = drawn(prometheus, expression, model)
            assert values, expression
            assert all(math.isfinite(value) and value >= 0 for value in values.values()), (expression, values)
            if "genserve_" in expression:
                assert values.keys() == {(model, "1.0")}
    (query,) = (v["query"] for v in BOARD["templating"]["list"] if v["name"] == "model")
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()  # type: ignore[union-attr]
    assert {"fresh", "energy"} <= {*prometheus.api(f"/label/{label}/values", **{"match[]": metric})}


def test_a_version_that_is_unregistered_under_load_falls_to_zero(
    server: Server, prometheus: Prometheus
) -> None:
    second = versioned(server.store / "diffusion.mar", server.store / "fresh-2.mar", "2.0", "diffusion")
    open_now = (
        "sum by (ModelName, ModelVersion) (rate(genserve_open_request_seconds_total{ModelName='fresh'}[5s]))"
    )
    try:
        server.register(second.name, "fresh")
        wait_until(lambda: prometheus.ask(open_now).get(("fresh", "2.0")), 0)
        with server.client() as one, server.client() as two:
            with (
                one.stream("POST", "/predictions/fresh/2.0", json=FEWER) as first_stream,
                two.stream("POST", "/predictions/fresh/2.0", json=FEWER) as second_stream,
            ):
                frames = [
                    stream.iter_raw() for stream in (first_stream, second_stream)
                ]  # dropped, it hangs up
                for stream in frames:
                    next(stream)
                wait_until(lambda: prometheus.ask(open_now)["fresh", "2.0"] > 1, True)
                assert prometheus.ask(open_now)["fresh", "1.0"] == 0
                gone = httpx.delete(f"{server.management}/models/fresh/2.0", timeout=60)
                assert gone.status_code == 200
            wait_until(lambda: prometheus.ask(open_now)["fresh", "2.0"], 0)
    finally:
        second.unlink()
    text = httpx.get(f"{server.metrics}/metrics").text
    assert 'ModelVersion="2.0"' in text
    assert " gauge" not in text  # would stand still where it was


def test_the_counters_of_two_workers_add_up(server: Server, prometheus: Prometheus) -> None:
    url = f"{server.management}/models/diffusion-batched"

    def scale(n: int) -> None:
        parameters = {"min_worker": n, "max_worker": n, "synchronous": "true"}
        assert httpx.put(url, params=parameters, timeout=120).status_code in (200, 202)

    def count(name: str) -> float:
        return prometheus.ask(f"{name}{{ModelName='diffusion-batched'}}")["diffusion-batched", "1.0"]

    scale(2)
    before = count("genserve_answered_total"), count("genserve_images_total")
    with server.client() as client, ThreadPoolExecutor(12) as pool:
        fields = {"num_samples": 2, "steps": 20}
        answers = pool.map(lambda _: client.post("/predictions/diffusion-batched", json=fields), range(24))
        assert {answer.status_code for answer in answers} == {200}
    wait_until(lambda: count("genserve_answered_total"), before[0] + 24)
    wait_until(lambda: count("genserve_images_total"), before[1] + 48)
    scale(1)


# promtool's own words; docs/operations.md says why
OURS = r"genserve_request_seconds_(bucket|sum|count)"
COMPLAINTS = [
    r"(Requests\dXX|ts_inference_\w+) counter metrics should have \"_total\" suffix",
    r"ts_inference_latency_microseconds use base unit \"seconds\" instead of \"microseconds\"",
    r"genserve_\w+ label names should be written in 'snake_case' not 'camelCase'",
    OURS + r" counter metrics should have \"_total\" suffix",
    OURS + r" non-histogram (and non-summary )?metrics should not have \"_(bucket|sum|count)\" suffix",
    OURS + r" non-histogram metrics should not have \"le\" label",
]


def test_promtool_reads_the_metrics_and_complains_of_nothing_unknown(server: Server) -> None:
    text = httpx.get(f"{server.metrics}/metrics").text
    command = [installed("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr  # 3: it has complaints; 1: it cannot read them
    unknown = {
        line for line in done.stderr.splitlines() if not any(re.fullmatch(c, line) for c in COMPLAINTS)
    }
    assert not unknown
