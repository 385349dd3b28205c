"""What a refusal must leave as it is."""

from pathlib import Path


def state_of(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return names, times and contents of the files of a directory, and the time of the directory itself."""
    files = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.iterdir()}
    return files | {"": (directory.stat().st_mtime_ns, b"")}
