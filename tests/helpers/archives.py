"""Small archives for a real TorchServe: of ours with another handler, torn ones, and strangers."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from real_server import ROOT

MANIFEST = "MAR-INF/MANIFEST.json"
# a handler whose worker is loading for ever
NEVER_LOADS = "import time\ndef handle(data, context):\n    time.sleep(1000)\n"
SMALL = "energy-mnist-pcd"  # the shipped run that loads fastest


def packed(store: Path, name: str = "small", run: str = SMALL, mode: str = "continuous") -> Path:
    """Pack a shipped run into a store, as a user does, but for the backend that loads fastest."""
    command = [sys.executable, ROOT / "scripts" / "build_archives", "--output", store, "--name", name]
    command += ["--backend", "torchscript"]
    subprocess.run([*map(str, command), "--run", str(ROOT / "weights" / run), "--mode", mode], check=True)
    return store / f"{name}.mar"


def shipped(store: Path, *names: str) -> None:
    """Pack shipped runs into a store, by their names in an address."""
    command = [sys.executable, ROOT / "scripts" / "build_archives", "--output", store, *names]
    subprocess.run([*map(str, command)], check=True)


def with_handler(store: Path, name: str, handler: str) -> Path:
    """Write an archive of one handler and nothing else; return it."""
    model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py", "configFile": "config.yaml"}
    path = store / f"{name}.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            MANIFEST, json.dumps({"runtime": "python", "model": model, "archiverVersion": "0.12.0"})
        )
        archive.writestr("handler.py", handler)
        archive.writestr("config.yaml", "minWorkers: 1\nmaxWorkers: 1\n")
    return path


def versioned(
    source: Path, target: Path, version: str, name: str = "rolled", handler: bytes | None = None
) -> Path:
    """Write an archive as another version of a model, if given with another handler; return it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        manifest = json.loads(old.read(MANIFEST))
        manifest["model"] |= {"modelName": name, "modelVersion": version}
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == MANIFEST:
                data = json.dumps(manifest).encode()
            elif handler and entry.filename == manifest["model"]["handler"]:
                data = handler
            new.writestr(entry, data)
    return target
