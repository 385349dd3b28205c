"""Tell whether precisions and backends of genserve draw equally well: a judge measures several seeds of each.

The judge is a classifier that chose nothing. A row is one draw of one system, in one setting, with one seed;
it is kept in the output, and not drawn again.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from systems import System
from tqdm import tqdm

from genserve import images
from genserve.cli import typed_command
from genserve.drawing.local import draw, fair_classes, served_model
from genserve.files import digest, read_json, write_atomic, write_json
from genserve.measure import records
from genserve.measure.records import Column
from genserve.measure.reference import Judge, judge_for
from genserve.measure.sources import drawn_by
from genserve.models.config import OnceConfig
from genserve.places import located
from genserve.progress import Chunks
from genserve.runs.contract import Spec
from genserve.runs.defaults import spec_of
from genserve.runs.directory import config_of
from genserve.sampling.engine import Call
from genserve.sampling.settings import Setting

Row = dict[str, Any]
DRAWN_FROM = ("config.json", "weights.safetensors", "serving.json", "energies.json")  # files of a run
MEASURED = {"judge_frechet_distance": "distance", "judge_class": "class"}
COLUMNS = {
    "name": Column("in the judge's features", "{}"),
    "n": Column("n", "{}"),
    "nfe": Column("nfe", "{}"),
    "judge_frechet_distance": Column("distance", "{:.4f}"),
    "judge_class": Column("class", "{:.4f}"),
}


def bar(text: str) -> Chunks:
    """Show progress."""
    return lambda starts: tqdm(starts, text)


def loaded(run: Path, system: System) -> tuple[Spec, Call]:
    """Load a run as an archive of this system does."""
    return served_model(run, torch.device("cpu"), system.precision, system.backend)


def measured(
    run: Path, systems: Sequence[System], texts: Sequence[str], seeds: int, n: int, output: Path
) -> list[Row]:
    """Draw and measure what the output does not have yet; return the rows of these systems.

    Args:
        run: directory of a diffusion model or of an energy.
        texts: settings, SAMPLER:STEPS[:KEY=VALUE]...; () for what the run is served with.
        seeds: their number; they are 0, 1, ...
        n: images per draw.
        output: JSON file of the rows of all calls.

    Raises:
        FileNotFoundError, OSError, ValueError: as `served_model`, `Setting.parse` and `read_json`; or there
            is no judge of such images, or the model draws in one evaluation.
    """
    run = located(run)
    if isinstance(config_of(run), OnceConfig):
        raise ValueError(f"{run} draws in one evaluation, in fp32 alone: there is nothing to compare")
    shape, classes = drawn_by(run)
    judge_run, spec = judge_for(shape, classes), spec_of(run)
    if judge_run is None:
        raise ValueError(f"no judge of weights/judge-* knows images {shape}")
    judge = Judge(judge_run, shape, torch.device("cpu"), bar)
    texts = texts or (Setting.of(spec.defaults).text(spec.defaults),)
    settings = {text: Setting.parse(text, spec.defaults) for text in texts}
    load = cache(lambda system: loaded(run, system)[1])
    files = {
        "run": str(run),
        "weights": digest(*(run / name for name in DRAWN_FROM if (run / name).exists()))[:12],
        **records.classifier_of("judge", judge_run),
    }
    rows: list[Row] = read_json(output)["rows"] if output.exists() else []
    result = []
    for seed, (text, setting), system in itertools.product(range(seeds), settings.items(), systems):
        about: Row = {"precision": system.precision, "backend": system.backend, "setting": text}
        about |= {"n": n, "seed": seed} | {key: files[key] for key in ("weights", "judge_weights")}
        row = next((row for row in rows if about.items() <= row.items()), None)
        if row is None:
            row = about | files | judged(judge, load(system), spec, setting, about)
            rows.append(row)
            output.parent.mkdir(parents=True, exist_ok=True)
            write_json(output, {"rows": rows})
        result.append({"system": system.name} | row)
    return result


def judged(judge: Judge, model: Call, spec: Spec, setting: Setting, about: Row) -> Row:
    """Draw the images of one row and return what the judge measures in them."""
    n = about["n"]
    y = fair_classes(n, judge.stats.class_counts) if spec.classes else torch.full((n,), spec.no_class)
    title = f"{about['backend']} {about['precision']} {about['setting']}, seed {about['seed']}"
    x = draw(model, spec, setting, y, about["seed"], chunks=bar(title))
    numbers = {"nfe": setting.nfe} | judge.measure(x, y if spec.classes else None)
    return numbers | {"held_out": judge.floor()} | records.provenance(typed_command())


def side_by_side(run: Path, systems: Sequence[System], text: str, n: int, path: Path) -> str:
    """Write a picture with a row of n images for each system, the same seeds above each other.

    Args:
        text: the setting; "" for what the run is served with.

    Returns:
        For each system how far its pixels are from those of the first.

    Raises:
        FileNotFoundError, OSError, ValueError: as `measured`.
    """
    run = located(run)
    spec = spec_of(run)
    setting = Setting.parse(text, spec.defaults) if text else Setting.of(spec.defaults)
    y = torch.arange(n) % max(1, spec.no_class)
    rows = [draw(loaded(run, system)[1], spec, setting, y) for system in systems]
    sheet = images.grid(torch.cat(rows).permute(0, 2, 3, 1).numpy(), n)
    write_atomic(path, images.png(images.enlarge(sheet, 2)))
    lines = []
    for system, row in zip(systems[1:], rows[1:], strict=True):
        apart = (row.int() - rows[0].int()).abs()
        worst, mean = int(apart.max()), float(apart.float().mean())
        lines.append(
            f"{system.label} beside {systems[0].label}: pixels of 0 to 255 differ by {mean:.2f} on average, "
            f"{worst} at most; {float((apart > 16).float().mean()):.2%} by more than 16"
        )
    return "\n".join([*lines, f"{path}: a row each, from above {', '.join(s.label for s in systems)}"])


def summary(rows: list[Row]) -> str:
    """Return mean and spread over the seeds of each system, and by how many spreads systems differ.

    Each is compared with the first system in the same setting.
    """
    draws: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        draws.setdefault((row["setting"], f"{row['system']} ({row['precision']})"), []).append(row)
    keys = [key for key in MEASURED if key in rows[0]]
    lines = [{"name": "all held-out images"} | rows[0]["held_out"]]
    for (setting, system), repeats in draws.items():
        columns = ("n", "nfe", "seed", *keys)
        named = [{"name": f"{system}, {setting}"} | {key: row[key] for key in columns} for row in repeats]
        lines.append(records.together(named))
    parts = [records.table(lines, COLUMNS), ""]
    firsts = dict(reversed(draws))  # of systems in one setting, the first has the last word
    for (setting, system), repeats in draws.items():
        if system != (first := firsts[setting]):
            others = draws[setting, first]
            words = [
                f"{MEASURED[key]} {difference([row[key] for row in repeats], [row[key] for row in others])}"
                for key in keys
            ]
            parts.append(f"{system} beside {first}, {setting}: {'; '.join(words)}")
    n = len(next(iter(draws.values())))
    parts.append(
        f"Of {n} seeds, mean ± standard deviation; a spread is the root mean square of two of these."
        if n > 1
        else "One seed shows no spread: give --seeds-of-quality 2 or more."
    )
    return "\n".join(parts)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return in words how the mean of a system's seeds differs from another's, and by how many spreads."""
    gap = statistics.fmean(ours) - statistics.fmean(theirs)
    if gap == 0:
        return "is the same"
    words = f"{abs(gap):.4f} {'higher' if gap > 0 else 'lower'}"
    if len(ours) < 2:
        return words
    spread = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / 2)
    spreads = abs(gap) / spread if spread else math.inf
    verdict = "within what seeds differ by" if spreads <= 1 else "more than seeds differ by"
    return f"{words}, differs by {spreads:.1f} spreads, {verdict}"
