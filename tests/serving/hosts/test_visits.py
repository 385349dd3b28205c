"""Every metric that a worker tells is declared with its labels, explained and drawn.

The host drops what is not declared without a word. Handler, metrics and the lines it reads are the real ones.
"""

import json
import logging
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import loading
import pytest
import yaml
from real_server import ROOT
from ts.context import Context
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from genserve.families import FAMILIES, SERVED, load
from genserve.runs.export import export
from genserve.serving.fields import files
from genserve.serving.hosts import visits
from genserve.serving.hosts.visits import HOST_SHARE, Slices

# Metric.parse in the host's front end, less the unit and the time
LINE = re.compile(r"\[METRICS\](\w+)\.\w+:([0-9\-,.e]+)\|#([^|]*)\|#type:(\w+)\|#hostname:[^,]+,[^,]+,all")
DECLARED = {
    entry["name"]: entry["dimensions"]
    for entry in yaml.safe_load((ROOT / "metrics.yaml").read_text())["model_metrics"]["counter"]
}


class Line(NamedTuple):
    """What the host reads of a metric."""

    name: str
    value: float
    labels: dict[str, str]


LANE_TIME = "genserve_lane_seconds_total"  # grows while nothing happens
WRITER = "ts.metrics.caching_metric"  # the logger whose lines the host reads


def lines(caplog: pytest.LogCaptureFixture) -> list[Line]:
    """Return what was written for the host since the last call."""
    texts = [r.getMessage() for r in caplog.records if r.name == WRITER]
    caplog.clear()
    matches = [LINE.fullmatch(text) for text in texts]
    assert None not in matches, texts
    fields = [match.groups() for match in matches if match]
    assert {kind for *_, kind in fields} <= {"COUNTER"}  # a gauge would stay when its model is gone
    return [
        Line(name, float(value), dict(label.split(":") for label in labels.split(",")))
        for name, value, labels, _ in fields
    ]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    export(ROOT / "weights" / "diffusion-mnist", folder)
    return folder


def started(archive: Path, mode: str, version: str = "1.0") -> Any:
    """Return a handler that was initialized as a worker does it, and the host's metrics."""
    metrics = MetricsCacheYamlImpl(str(ROOT / "metrics.yaml"))
    metrics.initialize_cache()
    metrics.model_name = "digits"
    metrics.set_request_ids("the loading of the model")
    settings = yaml.safe_load((ROOT / "handlers" / f"{mode}.yaml").read_text())
    settings["handler"] |= {"budget": 4, "threads": 1}
    handler = loading.new("diffusion_handler", "DiffusionHandler")
    manifest = {"model": {"modelVersion": version}}
    handler.initialize(Context("digits", str(archive), manifest, 8, None, "", True, metrics, settings))
    return handler, metrics


@pytest.mark.parametrize("mode", ["continuous", "batched"])
def test_a_worker_tells_every_declared_metric_as_zero_when_it_has_loaded(
    archive: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    handler, metrics = started(archive, mode, "2.5")
    first = lines(caplog)
    assert {line.name for line in first} == DECLARED.keys()
    for line in first:
        assert list(line.labels) == DECLARED[line.name]  # the host takes their values by position
        assert line.labels.items() >= {"ModelName": "digits", "ModelVersion": "2.5", "Level": "Model"}.items()
        assert line.value == 0 or line.name == LANE_TIME
    visits.tell(metrics, handler.service.meter, "2.5")
    assert {line.name for line in lines(caplog)} <= {LANE_TIME}  # what has not grown is not told again


def test_a_worker_tells_what_its_requests_were(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    handler, metrics = started(archive, "batched")
    caplog.set_level(logging.INFO)
    good = {"num_samples": 2, "steps": 5}
    replies = handler.service.answers([good, {"steps": 0}, good])
    assert [reply.status for reply in replies] == [200, 400, 200]
    visits.tell(metrics, handler.service.meter, "1.0")
    sums = {(line.name, line.labels.get("le")): line.value for line in lines(caplog)}
    assert sums.keys() <= {(name, None) for name in DECLARED} | {
        ("genserve_request_seconds_bucket", le) for _, le in sums
    }
    counts = {name: sums.get((f"genserve_{name}_total", None)) for name in ("answered", "rejected", "failed")}
    assert counts == {"answered": 2, "rejected": 1, "failed": None}
    assert sums["genserve_images_total", None] == 4
    assert sums["genserve_evaluations_total", None] == 20
    assert sums["genserve_request_seconds_bucket", "+Inf"] == 2
    assert 0 < sums["genserve_model_seconds_total", None] <= sums["genserve_open_seconds_total", None]
    open_s, both_s = (sums[f"genserve_{n}_total", None] for n in ("open_seconds", "open_request_seconds"))
    assert open_s < both_s < 2.01 * open_s  # one lane, two requests


def test_a_worker_tells_while_the_host_waits_for_it(
    archive: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "TELL_EVERY_S", 0.02)
    handler, metrics = started(archive, "batched")
    caplog.set_level(logging.INFO)
    metrics.request_ids = {
        0: "another request"
    }  # the host's own thread changes them; they are not ours to read
    handler.service.meter.add("failed")
    deadline = time.monotonic() + 60
    while not any("genserve_failed_total" in record.getMessage() for record in list(caplog.records)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    written = [(line.name, line.value) for line in lines(caplog) if line.name != LANE_TIME]
    assert written == [("genserve_failed_total", 1)]
    assert metrics.request_ids == {0: "another request"}


def test_the_operations_page_explains_each_metric() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^\| `(genserve_\w+)` \| counter \|", page, re.MULTILINE)) == DECLARED.keys()


def test_the_dashboard_draws_each_metric_by_model_and_version() -> None:
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    assert {n for t in targets for n in re.findall(r"genserve_\w+", t["expr"])} == DECLARED.keys()
    for target in targets:
        if "genserve_" in target["expr"]:
            assert target["legendFormat"].startswith("{{ModelName}} {{ModelVersion}}")


def test_slices_follow_the_time_that_the_host_takes() -> None:
    now = 0.0
    slices = Slices(lambda: now)
    for _ in range(100):
        slices.leave(coming_back=True, answered=False)
        now += 0.002
        kept = slices.enter()
        now += kept
    assert kept == pytest.approx(0.002 / HOST_SHARE, rel=0.01)
    assert HOST_SHARE <= 0.05
    slices.leave(coming_back=False, answered=False)
    now += 60  # no request came
    assert slices.enter() == pytest.approx(0.002 / HOST_SHARE, rel=0.01)
    slices.leave(coming_back=True, answered=True)
    now += 0.002
    assert slices.enter() < 0.002 / HOST_SHARE / 2  # those who were answered may be back


def test_no_field_that_holds_a_file_is_written_into_the_access_log() -> None:
    """The host logs addresses; log4j2.xml cuts pictures out of their query strings, by name."""
    pattern = re.search(r"b\(([a-z_|]+)\)=", (ROOT / "log4j2.xml").read_text())
    assert pattern is not None
    kinds = [load(FAMILIES[name].request) for name in SERVED]
    assert set(pattern[1].split("|")) == {"data", *(name for kind in kinds for name in files(kind))}
