"""Pack trained runs into TorchServe archives: the network as TorchScript, its contract, our code.

    genserve archive                                      diffusion, consistency and energy
    genserve archive --run runs/mine --name mine          one of your own
    genserve archive --version 2.0                        to roll a new version beside the old one
    genserve archive --mode batched                       for several workers, which the host scales

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

from genserve.families import FAMILIES, SERVED
from genserve.operate.environment import interpreter, versions
from genserve.places import PACKAGES, PROJECT, kept, located

# the name in the URL, and the run behind it; other runs in weights/ are built by --run
SHIPPED = {
    "diffusion": "weights/diffusion-mnist",
    "consistency": "weights/consistency-mnist",
    "energy": "weights/energy-mnist",
}
MODES = ("continuous", "batched")  # handlers/MODE.yaml says what each is
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"  # what the archiver and a URL take
EPOCH = (1980, 1, 1, 0, 0, 0)


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for."""
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
        "--model-store",
        "--output",
        type=Path,
        default=kept("model_store"),
        help="folder of archives (default: model_store); --output is an older name of the flag",
    )
    return parser.parse_args(argv)


def run(argv: list[str]) -> None:
    """Build what the flags ask for; a failure ends the program in one line."""
    options = command_line(argv)
    try:
        main(options)
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(f"{error.filename or 'archive'}: {error.strerror}")


def main(options: Namespace) -> None:
    """Build one archive, or all that are served."""
    python = interpreter()
    runs = {name: PROJECT / path for name, path in SHIPPED.items()}
    if options.run:
        directory = located(options.run)
        runs = {options.name or directory.resolve().name: directory}
    options.model_store.mkdir(parents=True, exist_ok=True)
    for name, directory in runs.items():
        build(name, directory, options, python)


def handler_of(directory: Path) -> Path:
    """Return the handler file of a run's family.

    Raises:
        SystemExit: the directory is no run, or of a family without a handler.
    """
    missing = [n for n in ("config.json", "weights.safetensors") if not (directory / n).is_file()]
    if missing:
        sys.exit(f"{directory} is no run that can be served: it has no {' and no '.join(missing)}")
    try:
        family = json.loads((directory / "config.json").read_text())["model"]["family"]
    except (ValueError, KeyError, TypeError, RecursionError):
        sys.exit(f"{directory} is no run that can be served: its config.json names no family")
    if family not in SERVED:
        sys.exit(f"{directory} is of the family {family}; there are handlers for {', '.join(SERVED)}")
    return PROJECT / FAMILIES[family].handler[0]


def build(name: str, directory: Path, options: Namespace, python: Path) -> None:
    """Write NAME.mar, unless the existing one was made from the same input."""
    for flag, value in (("--name", name), ("--version", options.version)):  # the version labels the metrics
        if not re.fullmatch(NAME, value):
            sys.exit(f"{flag} must be letters, digits, '.', '_' or '-', got {value!r}")
    handler = handler_of(directory)
    settings = PROJECT / "handlers" / f"{options.mode}.yaml"
    package = imported(handler)
    parts = ("config.json", "weights.safetensors", "serving.json", "energies.json")
    weights = [directory / n for n in parts if (directory / n).exists()]
    inputs = [*package, handler, settings, *weights, Path(__file__)]
    words = [name, options.version, options.precision, *versions(python, "torch", "torch-model-archiver")]
    words += [hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs]
    key = hashlib.sha256("\0".join(words).encode()).hexdigest()
    target = options.model_store / f"{name}.mar"
    if made_from(target) == key.encode():
        print(f"{target.name}: up to date")
        return
    with tempfile.TemporaryDirectory() as scratch:
        archive = pack(name, directory, options, python, package, handler, settings, Path(scratch))
        data = reproducible(archive, key)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as error:
        sys.exit(f"{target}: {error.strerror}")
    finally:
        partial.unlink(missing_ok=True)
    print(f"{target.name}: {len(data) / 1e6:.1f} MB from {os.path.relpath(directory)}, {options.mode}")


def pack(
    name: str,
    directory: Path,
    options: Namespace,
    python: Path,
    package: list[Path],
    handler: Path,
    settings: Path,
    scratch: Path,
) -> Path:
    """Export the run and let the archiver pack it with the code; return the archive, in scratch."""
    for source in package:
        copy = scratch / "extra" / source.relative_to(PACKAGES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    # A fresh interpreter with a fixed hash seed: both show in the names and the order TorchScript writes.
    export = [python, "-m", "genserve.runs.export", directory.resolve(), scratch / "model"]
    call(export, scratch, PYTHONHASHSEED="0", PYTHONPATH=str(PACKAGES))
    (scratch / "model" / "model.json").rename(scratch / "extra" / "model.json")
    text = settings.read_text().replace("precision: auto", f"precision: {options.precision}")
    (scratch / "model-config.yaml").write_text(text)
    call(
        [
            python, "-m", "model_archiver.model_packaging", "--model-name", name,
            "--version", options.version,
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
            if name == "MAR-INF/MANIFEST.json":
                manifest = {k: v for k, v in json.loads(data).items() if k != "createdOn"}
                data = json.dumps(manifest, indent=2).encode()
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            target.writestr(info, data, zipfile.ZIP_STORED if name.endswith(".pt") else zipfile.ZIP_DEFLATED)
        target.comment = key.encode()
    return buffer.getvalue()


def made_from(archive: Path) -> bytes:
    """Return the key of an archive, b"" if there is no such archive."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.comment
    except (OSError, zipfile.BadZipFile):
        return b""


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
