"""Pack one run with the code that serves it, in a fresh interpreter; the same input gives the same bytes."""

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from genserve.backends import INT8
from genserve.operate.building.backends import COMPILER, Evaluated
from genserve.operate.store import MANIFEST
from genserve.places import PACKAGES

EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(
    name: str,
    directory: Path,
    version: str,
    by: Evaluated,
    python: Path,
    parts: tuple[Path, Path],
    scratch: Path,
) -> Path:
    """Export the run and let the archiver pack it with the code; return the archive, in scratch.

    Args:
        by: what evaluates the network.
        python: that exports and packs.
        parts: handler, and model-config.yaml as it is before the wishes in `by`.

    Raises:
        SystemExit: as `call`.
    """
    handler, settings = parts
    for source in imported(handler):
        copy = scratch / "extra" / source.relative_to(PACKAGES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    # A fresh interpreter with a fixed hash seed: both show in the names and the order TorchScript writes.
    export = [python, "-m", "genserve.runs.export", directory.resolve(), scratch / "model"]
    call(export, scratch, PYTHONHASHSEED="0", PYTHONPATH=str(PACKAGES))
    (scratch / "model" / "model.json").rename(scratch / "extra" / "model.json")
    if by.made_by:
        compiling = [python, "-m", COMPILER, directory.resolve(), scratch / "extra"]
        compiling += [INT8] if by.precision == INT8 else []
        # on busy cores torch's own threads take several times as long
        call(compiling, scratch, PYTHONHASHSEED="0", PYTHONPATH=str(PACKAGES), OMP_NUM_THREADS="1")
    text = settings.read_text().replace("precision: auto", f"precision: {by.precision}")
    text = text.replace("backend: torchscript", f"backend: {by.backend}")
    (scratch / "model-config.yaml").write_text(text)
    call(
        [
            python, "-m", "model_archiver.model_packaging", "--model-name", name,
            "--version", version,
            "--serialized-file", scratch / "model" / "model.pt", "--handler", handler,
            "--config-file", scratch / "model-config.yaml",
            "--extra-files", scratch / "extra", "--export-path", scratch,
        ],
        scratch,
    )  # fmt: skip
    return scratch / f"{name}.mar"


def imported(handler: Path) -> list[Path]:
    """Return the modules of genserve that a handler imports, directly or not: what its archive carries."""
    modules: set[Path] = set()
    new = [handler]
    while new:
        for name in _names(new.pop()):
            path = PACKAGES / name.replace(".", "/")
            packages = [parent / "__init__.py" for parent in path.parents if PACKAGES in parent.parents]
            for file in (*packages, path / "__init__.py", path.with_suffix(".py")):
                if file.exists() and file not in modules:
                    modules.add(file)
                    new.append(file)
    return sorted(modules)


def _names(source: Path) -> list[str]:
    """Return the dotted names of genserve that a file imports; of modules, and of what is in them."""
    names = []
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == "genserve"]


def reproducible(archive: Path, key: str) -> bytes:
    """Return the archive with sorted entries and no times; its comment says what it was made from."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in sorted(n for n in source.namelist() if not n.endswith("/")):
            data = source.read(name)
            if name == MANIFEST:
                manifest = {k: v for k, v in json.loads(data).items() if k != "createdOn"}
                data = json.dumps(manifest, indent=2).encode()
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            target.writestr(info, data, zipfile.ZIP_STORED if name.endswith(".pt") else zipfile.ZIP_DEFLATED)
        target.comment = key.encode()
    return buffer.getvalue()


def call(command: list[object], temporary: Path, **environment: str) -> None:
    """Run a command; the archiver deletes files named like its model in the temporary folder.

    Raises:
        SystemExit: it failed; the message ends with the last line of its output.
    """
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"TMPDIR": str(temporary)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        output = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        sys.exit(f"{' '.join(str(word) for word in command)} failed: {output[-1]}")
