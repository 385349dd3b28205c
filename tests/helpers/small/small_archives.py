"""Archives without a model, for what looks at archives."""

import json
import zipfile
from pathlib import Path


def archive(path: Path, name: str = "a", version: str = "1.0", more: bytes = b"") -> Path:
    """Write an archive with a manifest and a file."""
    manifest = {"model": {"modelName": name, "modelVersion": version, "handler": "h.py"}}
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        file.writestr("weights", more)
    return path
