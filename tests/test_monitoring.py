"""Every metric that a worker tells is declared, explained and, where a dashboard names one, there."""

import json
import re

import yaml
from real_server import ROOT

DECLARED = {
    entry["name"]
    for section in yaml.safe_load((ROOT / "metrics.yaml").read_text())["model_metrics"].values()
    for entry in section
}


def test_the_operations_page_explains_each_metric() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    explained = set(re.findall(r"^\| `(genserve_\w+)` \|", page, re.MULTILINE))
    assert explained == DECLARED


def test_what_the_code_counts_is_declared() -> None:
    source = "".join((ROOT / "genserve" / name).read_text() for name in ("torchserve.py", "meter.py"))
    counted = set(re.findall(r'meter\.add\("(\w+)"', source)) | set(re.findall(r'"(\w+)": lanes\.', source))
    told = {f"genserve_{name}_total" for name in counted} | set(re.findall(r'"(genserve_\w+)"', source))
    assert told == DECLARED


def test_the_dashboard_asks_for_what_there_is() -> None:
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name.removesuffix("_bucket") for query in queries for name in re.findall(r"genserve_\w+", query)}
    assert asked == DECLARED
