"""Keep what was measured: rows of numbers, tables of them, and JSON lines with the code that made them."""

import errno
import json
import os
import statistics
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch

import genserve
from genserve import files


class Column(NamedTuple):
    """The format of a number in a table."""

    heading: str
    form: str
    scale: float = 1.0  # factor of the number


MANIFOLDS = {name: Column(name, "{:.3f}") for name in ("precision", "density", "recall", "coverage")}
COLUMNS = {
    "name": Column("", "{}"),
    "n": Column("n", "{}"),
    "nfe": Column("nfe", "{}"),
    "frechet_distance": Column("FD", "{:.3f}"),
    "kernel_distance": Column("KDx1000", "{:.3f}", 1000),
    **MANIFOLDS,
    "class_1000": Column("class@1000", "{:.3f}"),
    "class": Column("class", "{:.4f}"),
    "copy_distance": Column("copy", "{:.1f}"),
    "judge_frechet_distance": Column("FD judge", "{:.3f}"),
    "judge_multiple": Column("x floor", "{:.2f}"),
    "against": Column("against", "{:.3f}"),
    "images_per_s": Column("images/s", "{:.0f}"),
}
INCEPTION_COLUMNS = {
    "name": Column("in the features of Inception", "{}"),
    "inception_frechet_distance": Column("FID", "{:.2f}"),
    "inception_kernel_distance": Column("KIDx1000", "{:.3f}", 1000),
    **{f"inception_{name}": column for name, column in MANIFOLDS.items()},
}
WORDS = ("name", "n", "nfe")  # equal in all repeats


def table(rows: list[dict[str, Any]], columns: dict[str, Column]) -> str:
    """Return the rows as aligned text, without the columns that no row fills."""
    keys = [key for key in columns if any(key in row for row in rows)]

    def cell(row: dict[str, Any], key: str) -> str:
        _, form, scale = columns[key]
        if key not in row or key in WORDS:
            return str(row.get(key, "-"))
        values = [row[key], *([row["std"][key]] if "std" in row else [])]
        return " ± ".join(form.format(value * scale) for value in values)

    lines = [[columns[key].heading for key in keys]] + [[cell(row, key) for key in keys] for row in rows]
    name, *widths = (max(len(line[i]) for line in lines) for i in range(len(keys)))
    return "\n".join(
        "  ".join([line[0].ljust(name), *(cell.rjust(w) for cell, w in zip(line[1:], widths, strict=True))])
        for line in lines
    )


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row for the repeats of a setting: mean and standard deviation of every number."""
    if len(rows) == 1:
        return rows[0]
    draws = {key: [row[key] for row in rows] for key in rows[0] if key not in (*WORDS, "seed")}
    shared = {key: rows[0][key] for key in WORDS}
    means = {key: statistics.fmean(values) for key, values in draws.items()}
    std = {key: statistics.stdev(values) for key, values in draws.items()}
    repeats = [{key: row[key] for key in ("seed", *draws)} for row in rows]
    return shared | means | {"std": std, "repeats": repeats}


def with_multiples(rows: list[dict[str, Any]], floor: float) -> list[dict[str, Any]]:
    """Return the rows with the judge's Frechet distance in multiples of its floor, `judge_multiple`.

    Args:
        floor: the judge's Frechet distance of as many held-out images as each row has.
    """

    def added(row: dict[str, Any]) -> dict[str, Any]:
        result = row | {"judge_multiple": row["judge_frechet_distance"] / floor}
        if "std" in row:
            result["std"] = added(row["std"])
            result["repeats"] = [added(repeat) for repeat in row["repeats"]]
        return result

    return [added(row) for row in rows]


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as text: one table, and a second of what was measured in features of Inception."""
    more = any("inception_frechet_distance" in row for row in rows)
    return [table(rows, COLUMNS)] + ([table(rows, INCEPTION_COLUMNS)] if more else [])


def digest(path: Path) -> str:
    """Return the first 12 digits of a file's SHA-256, as in `Spec.weights`."""
    return files.digest(path)[:12]


def classifier_of(role: str, directory: Path | None) -> dict[str, str | None]:
    """Return the run directory of a classifier and the digest of its weights; both are None without one.

    Args:
        role: "classifier" or "judge", the start of the keys.
    """
    weights = None if directory is None else digest(directory / "weights.safetensors")
    return {role: None if directory is None else str(directory), f"{role}_weights": weights}


def revision(file: Path) -> dict[str, Any] | None:
    """Return the git revision of a source file, or None if git does not know the file.

    The tree is dirty if any file differs that could change a result; lines of records cannot.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # an installed copy may lie in another project's tree
        changes = git("status", "--porcelain", "--", ":(top)", ":(top,exclude)*.jsonl")
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance(command: str) -> dict[str, Any]:
    """Return the time, command and code of a measurement.

    Args:
        command: its command line.
    """
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "git": revision(Path(__file__).resolve()),
        "genserve": genserve.__version__,
        "torch": torch.__version__,
    }


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one line to a file of JSON lines; NaN is refused.

    The line goes out in one write, so that programs may append at the same time. If a kill has cut the last
    line short, the new one starts on a line of its own.

    Raises:
        OSError: the disk is full, and so on, with the name of the file.
        ValueError: the record holds NaN or infinity.
    """
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    with files.naming(path), path.open("a+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        if file.write(line) < len(line):  # a disk that is nearly full takes part of a line, without an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
