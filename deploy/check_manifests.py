"""Check what a cluster would be given: by Kustomize, by Kubernetes' schemas, and by what no schema sees."""

import json
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
# What a cluster would be given: a folder, or a base with components.
FOLDERS = ("overlays/cpu", "overlays/gpu", "bulk", "../kserve")
OPTIONAL = {
    "resources": ["base"],
    "components": ["components/door", "components/monitoring", "components/keda"],
}
MANAGEMENT = 8081
Document = dict[str, Any]


class NotRun(Exception):  # noqa: N818 (no error: a check that this machine cannot make)
    """Why a check was not made."""


def plain() -> list[Document]:
    """Return the documents of the base, its door and the rest as they are written, without Kustomize."""
    base = [*sorted((DEPLOY / "kubernetes/base").glob("*.yaml")), DEPLOY / "nginx/door.yaml"]
    files = [*base, DEPLOY / "kubernetes/bulk/job.yaml", *sorted((DEPLOY / "kserve").glob("*.yaml"))]
    every = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    documents = [document for document in every if document["kind"] != "Kustomization"]
    for document in kinds(documents, "Deployment"):  # labels that Kustomize would write
        document["spec"]["template"]["metadata"] = {"labels": document["spec"]["selector"]["matchLabels"]}
    return documents


def rendered() -> dict[str, list[Document]]:
    """Return the documents of each folder, as Kustomize puts them together; without it, as they are written.

    Raises:
        ValueError: Kustomize refuses them.
    """
    if not (kubectl := shutil.which("kubectl")):
        return {"manifests as they are written, for there is no kubectl": plain()}
    with tempfile.TemporaryDirectory() as scratch:
        base = os.path.relpath(DEPLOY / "kubernetes", Path(scratch).resolve())
        optional = {key: [f"{base}/{path}" for path in paths] for key, paths in OPTIONAL.items()}
        (Path(scratch) / "kustomization.yaml").write_text(json.dumps(optional))
        folders = {name: DEPLOY / "kubernetes" / name for name in FOLDERS} | {
            "with all components": Path(scratch)
        }
        return {
            name: list(yaml.safe_load_all(output([kubectl, "kustomize", path])))
            for name, path in folders.items()
        }


def output(command: list[Any]) -> str:
    """Return what a command prints; raises ValueError with what it complained of."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError((done.stderr or done.stdout).strip()[-2000:])
    return done.stdout


def kinds(documents: list[Document], kind: str) -> list[Document]:
    """Return the documents of a kind."""
    return [document for document in documents if document["kind"] == kind]


def built_in(document: Document) -> bool:
    """Return whether Kubernetes itself knows a kind."""
    group = document["apiVersion"].partition("/")[0]
    return "/" not in document["apiVersion"] or "." not in group or group.endswith("k8s.io")


def validate(document: Document) -> None:
    """Check a document of Kubernetes' own kinds; unknown fields are errors. Raises ValueError."""
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ValueError(f"{named(document)}: {error.message} at {'.'.join(map(str, error.path))}") from None


def named(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def definitions(folder: Path) -> dict[tuple[str, str], Document]:
    """Return the schemas of custom kinds, by apiVersion and kind, closed to unknown fields."""
    schemas = {}
    for path in sorted(folder.glob("*.yaml*")):
        content = path.read_bytes()
        text = lzma.decompress(content) if path.suffix == ".xz" else content
        for document in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            spec = document["spec"]
            for version in spec["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def closed(schema: Any) -> Any:
    """Return a schema in which no object has fields that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):  # its pattern is for text
        return {"type": ["integer", "string"]}
    properties, open_to_others = schema.get("properties"), schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(properties, dict) and "additionalProperties" not in schema and not open_to_others:
        schema["additionalProperties"] = False
    return schema


def check_custom(documents: list[Document], schemas: dict[tuple[str, str], Document]) -> None:
    """Check documents of custom kinds; raises ValueError."""
    for document in documents:
        schema = schemas.get((document["apiVersion"], document["kind"]))
        if schema is None:
            raise ValueError(f"{named(document)}: there is no definition of {document['apiVersion']}")
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(document))
        if errors:
            raise ValueError(f"{named(document)}: {errors[0].message[:300]} at {errors[0].json_path}")


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yield the pods that documents make: the owner's name and a template."""
    for document in documents:
        if "template" in document["spec"] if "spec" in document else False:
            yield named(document), document["spec"]["template"]
        elif document["kind"] == "ServingRuntime":
            yield named(document), {"metadata": {}, "spec": document["spec"]}


def faults(documents: list[Document]) -> Iterator[str]:
    """Yield what no schema sees: selectors without pods, open ports, rights, a drain that is cut."""
    templates = dict(pods(documents))
    labels = [template.get("metadata", {}).get("labels", {}) for template in templates.values()]
    names = {named(document) for document in documents}

    def selects(selector: Document | None) -> bool:
        pairs = (selector or {}).items()
        return bool(pairs) and any(pairs <= each.items() for each in labels)

    for document in documents:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                if not selects(spec.get("selector")):
                    yield f"{named(document)} selects no pod"
                if any(MANAGEMENT in (port["port"], port.get("targetPort")) for port in spec["ports"]):
                    yield f"{named(document)} opens the port of management"
            case "PodDisruptionBudget" | "Deployment":
                if not selects((spec.get("selector") or {}).get("matchLabels")):
                    yield f"{named(document)} selects no pod"
            case "NetworkPolicy":
                sources = [
                    rule for ingress in spec["ingress"] for rule in ingress["from"] if "podSelector" in rule
                ]
                for selector in [spec["podSelector"], *(rule["podSelector"] for rule in sources)]:
                    if not selects(selector.get("matchLabels")):
                        yield f"{named(document)} names pods that are not there: {selector}"
                if any(rule["podSelector"] == spec["podSelector"] for rule in sources):
                    yield f"{named(document)} lets servers in, and not the door"
            case "HorizontalPodAutoscaler" | "ScaledObject":
                if f"Deployment {spec['scaleTargetRef']['name']}" not in names:
                    yield f"{named(document)} scales nothing"
    if len([name for name in names if name.startswith(("HorizontalPodAutoscaler", "ScaledObject"))]) > 1:
        yield "two scale the same servers"
    deadline = yaml.safe_load((ROOT / "handlers/continuous.yaml").read_text())["handler"]["deadline"]
    for owner, template in templates.items():
        pod = template["spec"]
        for container in pod["containers"]:
            rights = pod.get("securityContext", {}) | container.get("securityContext", {})
            careful: dict[str, Any] = {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "runAsNonRoot": True,
            }
            careful |= {"capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
            yield from (
                f"{owner}: {key} is not {value}" for key, value in careful.items() if rights.get(key) != value
            )
            if any(port["containerPort"] == MANAGEMENT for port in container.get("ports", [])):
                yield f"{owner} opens the port of management"
            if "memory" not in container["resources"]["limits"]:
                yield f"{owner} has no limit of memory"
        grace = pod.get("terminationGracePeriodSeconds", 30)
        if owner.startswith("Deployment") and grace < deadline + 15:
            yield f"{owner} is killed after {grace} s, and open requests may take {deadline}"


def check_meaning(documents: list[Document]) -> None:
    """Raise ValueError with everything that `faults` yields."""
    if errors := list(faults(documents)):
        raise ValueError("\n".join(errors))
