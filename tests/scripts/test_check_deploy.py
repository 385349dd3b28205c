"""scripts/check_deploy passes what is shipped and finds what is planted."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from program import imported
from real_server import ROOT

check = imported("deploy/check_manifests.py")
Documents = list[dict[str, Any]]


def test_what_is_shipped_passes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/check_deploy"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert "ok        nginx: nginx -t" in done.stdout


@pytest.fixture(scope="module", params=["rendered", "plain"])
def documents(request: pytest.FixtureRequest) -> Documents:
    """The base with its door, put together by Kustomize where it is installed, and as it is written."""
    result: Documents = check.plain() if request.param == "plain" else next(iter(check.rendered().values()))
    return result


def one(documents: Documents, kind: str, name: str = "genserve") -> Any:
    return next(each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name)


def pod(documents: Documents) -> Any:
    return one(documents, "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda d: one(d, "Service")["spec"].pop("selector"), "Service genserve selects no pod"),
        (lambda d: one(d, "Service")["spec"]["ports"].append({"port": 8081}), "the port of management"),
        (lambda d: one(d, "PodDisruptionBudget")["spec"].pop("selector"), "Budget genserve selects"),
        (lambda d: one(d, "NetworkPolicy")["spec"].update(podSelector={}), "names pods that are not there"),
        (lambda d: one(d, "NetworkPolicy")["spec"]["ingress"][0]["from"][0]["podSelector"].update(
            matchLabels={"app.kubernetes.io/name": "genserve"}), "and not the door"),
        (lambda d: one(d, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="x"), "scales"),
        (lambda d: pod(d).update(terminationGracePeriodSeconds=30), "is killed after 30 s"),
        (lambda d: pod(d)["securityContext"].pop("runAsNonRoot"), "runAsNonRoot is not True"),
        (lambda d: pod(d)["containers"][0]["securityContext"].update(capabilities={}), "capabilities is not"),
        (lambda d: pod(d)["containers"][0].update(ports=[{"containerPort": 8081}]), "the port of management"),
        (lambda d: pod(d)["containers"][0]["resources"].update(limits={}), "no limit of memory"),
    ],
)  # fmt: skip
def test_what_is_planted_is_named(
    documents: Documents, plant: Callable[[Documents], Any], message: str
) -> None:
    assert list(check.faults(documents)) == []
    broken = copy.deepcopy(documents)
    plant(broken)
    assert any(message in fault for fault in check.faults(broken)), list(check.faults(broken))


def test_unknown_fields_and_wrong_types_are_named(documents: Documents) -> None:
    for field, value in (("replica", 2), ("replicas", "two")):
        broken = copy.deepcopy(one(documents, "Deployment"))
        broken["spec"][field] = value
        with pytest.raises(ValueError, match=r"Deployment genserve: .*(replica|two)"):
            check.validate(broken)


def test_custom_kinds_are_closed_to_unknown_fields(tmp_path: Path) -> None:
    spec = {"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": True, "anyOf": []}}}
    schema = {"type": "object", "properties": {"apiVersion": {}, "kind": {}, "spec": spec}}
    definition = {
        "spec": {
            "group": "example.com",
            "names": {"kind": "Thing"},
            "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}],
        }
    }
    (tmp_path / "thing.yaml").write_text(yaml.safe_dump(definition))
    schemas = check.definitions(tmp_path)
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"port": 1}}
    check.check_custom([thing], schemas)
    for wrong, message in (
        ({"spec": {"prot": 1}}, "prot"),
        ({"spec": {"port": []}}, "port"),
        ({"kind": "Other"}, "no def"),
    ):
        with pytest.raises(ValueError, match=message):
            check.check_custom([thing | wrong], schemas)


def test_a_token_is_made_for_a_client_and_a_certificate_once(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/door_secrets", tmp_path / "scripts")

    def made(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tmp_path / "scripts/door_secrets", name], capture_output=True, text=True, check=False
        )

    alice, bob, wrong = made("alice"), made("bob"), made("x; return 1")
    assert (alice.returncode, bob.returncode, wrong.returncode) == (0, 0, 2)
    assert ("signed by itself" in alice.stderr, bob.stderr) == (True, "")
    secrets = tmp_path / "deploy/secrets"
    lines = (secrets / "tokens.map").read_text().splitlines()
    assert lines == [f'"Bearer {alice.stdout.strip()}" alice;', f'"Bearer {bob.stdout.strip()}" bob;']
    assert len(alice.stdout.strip()) == 64
    assert secrets.stat().st_mode & 0o077 == 0
    assert {path.name for path in secrets.iterdir()} == {
        "tls.key",
        "tls.crt",
        "tokens.map",
        "grafana_password",
    }
