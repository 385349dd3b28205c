"""Pack trained runs into TorchServe archives: the network as TorchScript, its contract, our code.

    genserve archive                                      diffusion, consistency and energy
    genserve archive text words                           these of the shipped runs
    genserve archive --all                                every shipped run that can be served
    genserve archive --run runs/mine --name mine          one of your own
    genserve archive text --version 2.0                   to roll over the old one, whose archive stays
    genserve archive --mode batched                       for several workers, which the host scales

The same input gives the same bytes; an archive that is up to date is left alone. It is NAME.mar, or
NAME-VERSION.mar where NAME.mar is another version.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
import zipfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from genserve.backends import AUTO, BACKENDS, INT8, SERVED_IN, TORCHSCRIPT
from genserve.families import FAMILIES, SERVED
from genserve.operate.building.backends import COMPILER, Evaluated, evaluated
from genserve.operate.building.packing import imported, pack, reproducible
from genserve.operate.environment import interpreter, versions
from genserve.operate.store import MANIFEST, TORN
from genserve.places import PACKAGES, PROJECT, kept, located

# the name in the URL, and the run behind it
SHIPPED = {
    "diffusion": "weights/diffusion-mnist",
    "consistency": "weights/consistency-mnist",
    "energy": "weights/energy-mnist",
    "energy-pcd": "weights/energy-mnist-pcd",
    "cifar10": "weights/diffusion-cifar10",
    "energy-cifar10": "weights/energy-cifar10",
    "gan": "weights/gan-mnist",
    "vae": "weights/vae-mnist",
    "classifier": "weights/labels-cifar10",
    "text": "weights/text-austen",
    "ngram": "weights/ngram-austen",
    "classifier-mnist": "weights/labels-mnist",
    "words": "weights/words-english",
    "words-open": "weights/words-open",
}
# Each archive is a worker: one to three seconds of two cores at the start; 0.35 to 0.55 GB of memory, with a
# compiled network 0.75 to 1 GB.
USUAL = ("diffusion", "consistency", "energy")
MODES = ("continuous", "batched")  # handlers/MODE.yaml says what each is
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"  # what the archiver and a URL take


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(SHIPPED)} (default: {', '.join(USUAL)})"
    )
    parser.add_argument("--all", action="store_true", help="every shipped run that can be served")
    parser.add_argument("--run", type=Path, help="run directory, instead of a shipped run")
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
        "--backend",
        choices=(AUTO, *BACKENDS),
        default="auto",
        help="what evaluates the network on a CPU; openvino, faster, is for diffusion and energies "
        "(default: openvino for these, where it is installed)",
    )
    parser.add_argument(
        "--precision",
        choices=SERVED_IN,
        default="auto",
        help="of the network while it is served (default: bf16 where the machine has it in hardware); "
        "int8 is for diffusion on openvino: its wide convolutions, the rest as by default",
    )
    parser.add_argument(
        "--model-store",
        "--output",
        type=Path,
        default=kept("model_store"),
        help="folder of archives (default: model_store); --output is an older name of the flag",
    )
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in SHIPPED:
            parser.error(f"there is no shipped run {name!r} (allowed: {', '.join(SHIPPED)})")
    if bool(options.names) + options.all + bool(options.run) > 1:
        parser.error("names, --all and --run: one of them at a time")
    if options.name and not options.run:
        parser.error("--name is of one --run")
    if options.precision == INT8 and options.backend == TORCHSCRIPT:
        parser.error("--precision int8 is of --backend openvino")
    return options


def run(argv: list[str]) -> None:
    """Build what the flags ask for; a failure ends the program in one line."""
    options = command_line(argv)
    try:
        main(options)
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(f"{error.filename or 'archive'}: {error.strerror}")


def main(options: Namespace) -> None:
    """Build the archives that the options name."""
    python = interpreter()
    # a wheel has not all of them
    present = [name for name, run in SHIPPED.items() if (PROJECT / run).is_dir()]
    names = present if options.all else options.names or USUAL
    runs = {name: PROJECT / SHIPPED[name] for name in names}
    if options.run:
        directory = located(options.run)
        runs = {options.name or directory.resolve().name: directory}
    options.model_store.mkdir(parents=True, exist_ok=True)
    # what cannot be built is said before anything is
    chosen = {name: chosen_for(name, directory, options, python) for name, directory in runs.items()}
    for name, directory in runs.items():
        build(name, directory, chosen[name], options, python)


def chosen_for(name: str, directory: Path, options: Namespace, python: Path) -> Evaluated:
    """Return what will evaluate the network of an archive.

    Raises:
        SystemExit: it cannot be built so.
    """
    for flag, value in (("--name", name), ("--version", options.version)):  # the version labels the metrics
        if not re.fullmatch(NAME, value):
            sys.exit(f"{flag} must be letters, digits, '.', '_' or '-', got {value!r}")
    return evaluated(directory, family_of(directory), options.backend, options.precision, python)


def family_of(directory: Path) -> str:
    """Return the family of a run.

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
    return str(family)


def build(name: str, directory: Path, by: Evaluated, options: Namespace, python: Path) -> None:
    """Write an archive into the store, unless the existing one was made from the same input."""
    handler = PROJECT / FAMILIES[family_of(directory)].handler[0]
    settings = PROJECT / "handlers" / f"{options.mode}.yaml"
    package = imported(handler)
    compiler = imported(PACKAGES / f"{COMPILER.replace('.', '/')}.py") if by.made_by else []
    parts = (
        "config.json",
        "weights.safetensors",
        "serving.json",
        "energies.json",
        "words.txt",
        "tokens.json",
    )
    weights = [directory / n for n in parts if (directory / n).exists()]
    inputs = [*package, *compiler, handler, settings, *weights, Path(__file__)]
    words = [name, options.version, by.backend, by.precision, *by.made_by]
    words += versions(python, "torch", "torch-model-archiver")
    words += [hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs]
    key = hashlib.sha256("\0".join(words).encode()).hexdigest()
    target = place(options.model_store, name, options.version)
    if made_from(target) == key.encode():
        print(f"{target.name}: up to date")
        return
    with tempfile.TemporaryDirectory() as scratch:
        archive = pack(name, directory, options.version, by, python, (handler, settings), Path(scratch))
        data = reproducible(archive, key)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as error:
        sys.exit(f"{target}: {error.strerror}")
    finally:
        partial.unlink(missing_ok=True)
    made = f"{len(data) / 1e6:.1f} MB from {os.path.relpath(directory)}"
    print(f"{target.name}: {made}, {options.mode}, {by.backend}")


def place(store: Path, name: str, version: str) -> Path:
    """Return the file of an archive: NAME.mar, or NAME-VERSION.mar if that is another version's."""
    usual, own = store / f"{name}.mar", store / f"{name}-{version}.mar"
    return own if own.exists() or version_in(usual) not in ("", version) else usual


def version_in(archive: Path) -> str:
    """Return the version that an archive says it has, "" if there is none or it cannot be read."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return str(json.loads(opened.read(MANIFEST))["model"]["modelVersion"])
    except (*TORN, OSError, ValueError, LookupError, TypeError):
        return ""


def made_from(archive: Path) -> bytes:
    """Return the key of an archive, b"" if there is no such archive."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.comment
    except (OSError, zipfile.BadZipFile):
        return b""
