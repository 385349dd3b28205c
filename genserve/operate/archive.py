#!/usr/bin/env python3
"""Pack trained runs into TorchServe archives: the network as TorchScript, its contract, our code.

    ./scripts/build_archives                                      diffusion, consistency and energy
    ./scripts/build_archives --run runs/mine --name mine          one of your own
    ./scripts/build_archives --version 2.0                        to roll a new version beside the old one
    ./scripts/build_archives --mode batched                       for several workers, which the host scales

The same input gives the same bytes; an archive that is up to date is left alone.
"""

import ast
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
# the name in the URL, and the run behind it; other runs in weights/ are built by --run
SERVED = {
    "diffusion": "weights/diffusion-mnist",
    "consistency": "weights/consistency-mnist",
    "energy": "weights/energy-mnist",
}
HANDLERS = {"diffusion": "handlers/diffusion_handler.py", "energy": "handlers/energy_handler.py"}  # by family
MODES = ("continuous", "batched")  # handlers/MODE.yaml says what each is
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"  # what the archiver and a URL take
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run directory (default: those that are served)")
    parser.add_argument("--name", help="model name in the URL (default: the run's folder)")
    parser.add_argument("--version", default="1.0", help="model version (default: 1.0)")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=MODES[0],
        help="continuous (default): one worker, every open request in every evaluation, streaming; "
        "batched: ordinary dynamic batching, any number of workers",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of the network while it is served (default: bf16 where the machine has it in hardware)",
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "model_store", help="folder of archives (default: model_store)"
    )
    options = parser.parse_args()
    if not PYTHON.exists():
        sys.exit("genserve is not installed: run ./scripts/install first")
    runs = (
        {options.name or options.run.resolve().name: options.run}
        if options.run
        else {n: ROOT / p for n, p in SERVED.items()}
    )
    options.output.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        build(name, run, options)


def build(name: str, run: Path, options: Namespace) -> None:
    """Write NAME.mar unless the one that is there was made from the same input."""
    for flag, value in (("--name", name), ("--version", options.version)):  # the version labels the metrics
        if not re.fullmatch(NAME, value):
            sys.exit(f"{flag} must be letters, digits, '.', '_' or '-', got {value!r}")
    missing = [n for n in ("config.json", "weights.safetensors") if not (run / n).is_file()]
    if missing:
        sys.exit(f"{run} is no run that can be served: it has no {' and no '.join(missing)}")
    try:
        family = json.loads((run / "config.json").read_text())["model"]["family"]
    except (ValueError, KeyError, TypeError, RecursionError):
        sys.exit(f"{run} is no run that can be served: its config.json names no family")
    if family not in HANDLERS:
        sys.exit(f"{run} is of the family {family}; there are handlers for {', '.join(HANDLERS)}")
    handler = HANDLERS[family]
    settings = ROOT / "handlers" / f"{options.mode}.yaml"
    precision, version = options.precision, options.version
    package = imported(ROOT / handler)
    sources = [*package, ROOT / handler, settings]
    parts = ("config.json", "weights.safetensors", "serving.json", "energies.json")
    weights = [run / n for n in parts if (run / n).exists()]
    inputs = [*sources, *weights, Path(__file__), ROOT / "requirements.txt"]
    key = hashlib.sha256(
        "\0".join(
            [name, version, precision, *(hashlib.sha256(p.read_bytes()).hexdigest() for p in inputs)]
        ).encode()
    ).hexdigest()
    target = options.output / f"{name}.mar"
    if made_from(target) == key.encode():
        print(f"{target.name}: up to date")
        return
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        for source in package:
            copy = scratch / "extra" / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
        # A fresh interpreter with a fixed hash seed: both show in the names and the order TorchScript writes.
        export = [PYTHON, "-m", "genserve.runs.export", run.resolve(), scratch / "model"]
        call(export, scratch, PYTHONHASHSEED="0")
        (scratch / "model" / "model.json").rename(scratch / "extra" / "model.json")
        text = settings.read_text().replace("precision: auto", f"precision: {precision}")
        (scratch / "model-config.yaml").write_text(text)
        call(
            [
                PYTHON.parent / "torch-model-archiver", "--model-name", name, "--version", version,
                "--serialized-file", scratch / "model" / "model.pt", "--handler", ROOT / handler,
                "--config-file", scratch / "model-config.yaml",
                "--extra-files", scratch / "extra", "--export-path", scratch,
            ],
            scratch,
        )  # fmt: skip
        data = reproducible(scratch / f"{name}.mar", key)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as error:
        sys.exit(f"{target}: {error.strerror}")
    finally:
        partial.unlink(missing_ok=True)
    print(f"{target.name}: {len(data) / 1e6:.1f} MB from {os.path.relpath(run)}, {options.mode}")


def imported(handler: Path) -> list[Path]:
    """Return the modules of genserve that a handler imports, directly or not: what its archive carries."""
    modules, new = set(), [handler]
    while new:
        for node in ast.walk(ast.parse(new.pop().read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                if name.split(".")[0] != "genserve":
                    continue
                path = ROOT / name.replace(".", "/")
                packages = [parent / "__init__.py" for parent in path.parents if ROOT in parent.parents]
                for file in (*packages, path / "__init__.py", path.with_suffix(".py")):
                    if file.exists() and file not in modules:
                        modules.add(file)
                        new.append(file)
    return sorted(modules)


def reproducible(archive: Path, key: str) -> bytes:
    """Return the archive with sorted entries and no times; its comment says what it was made from."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in sorted(n for n in source.namelist() if not n.endswith("/")):
            data = source.read(name)
            if name == "MAR-INF/MANIFEST.json":
                manifest = {k: v for k, v in json.loads(data).items() if k != "createdOn"}
                data = json.dumps(manifest, indent=2).encode()
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            target.writestr(info, data, zipfile.ZIP_STORED if name.endswith(".pt") else zipfile.ZIP_DEFLATED)
        target.comment = key.encode()
    return buffer.getvalue()


def made_from(archive: Path) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.comment
    except (OSError, zipfile.BadZipFile):
        return b""


def call(command: list[object], temporary: Path, **environment: str) -> None:
    """Run a command; the archiver deletes what it finds under its model's name in the temporary folder."""
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"TMPDIR": str(temporary)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        sys.exit(f"{' '.join(str(word) for word in command)} failed: {said[-1]}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(f"{error.filename or 'build_archives'}: {error.strerror}")
