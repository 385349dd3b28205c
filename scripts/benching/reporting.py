"""Make tables of what was measured: ratios by rounds, and figures; or none, if the machine was not quiet.

A row is one attempt at one measurement: its round, system, precision and workload; of a loop, how many and of
what size; the figures; and the calibrations before and after it.
"""

import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from quiet import TOLERANCE, Row, slowdown
from speed import WORKLOADS
from systems import SYSTEMS, System, opponents

Key = tuple[str, ...]  # what was measured in every round: workload, system, precision, and loops or ""
QUANTILES = ("p50", "p95", "p99")


class Spread(NamedTuple):
    """The median of the rounds, the lowest and the highest of them, and their number."""

    median: float
    lowest: float
    highest: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Return the spread of one value or more."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))

    def cells(self, form: str) -> list[str]:
        """Return median, and lowest to highest, as text."""
        return [format(self.median, form), f"{self.lowest:{form}} to {self.highest:{form}}"]


# ---- quiet or not ------------------------------------------------------------------------------------------


def kept(rows: Iterable[Row], best: float) -> list[Row]:
    """Return the quietest attempt at each measurement; what it measured has no say."""
    quietest: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row["round"], *key_of(row))
        if key not in quietest or slowdown(row, best) < slowdown(quietest[key], best):
            quietest[key] = row
    return list(quietest.values())


def disturbed(rows: Iterable[Row], best: float) -> list[Row]:
    """Return the rows whose calibrations are too far from the best of the call."""
    return [row for row in rows if slowdown(row, best) > TOLERANCE]


def verdict(rows: list[Row], best: float) -> str:
    """Return the line that says how quiet the machine was."""
    slower, worst = disturbed(rows, best), max(slowdown(row, best) for row in rows)
    if not slower:
        return (
            f"Quiet: no calibration was more than {worst:.0%} slower than the best ({TOLERANCE:.0%} may be)."
        )
    return (
        f"DISTURBED: beside {len(slower)} of {len(rows)} measurements a calibration was more than "
        f"{TOLERANCE:.0%} slower than the best, by up to {worst:.0%}."
    )


def refusal(rows: list[Row], best: float) -> str:
    """Return why there is no table: which measurements were disturbed, and by how much."""
    lines = [
        f"  round {row['round']}, {row['system']} ({row['precision']}), "
        f"{' '.join([row['workload'], *([row['loops']] if 'loops' in row else [])])}: "
        f"{slowdown(row, best):.0%} slower"
        for row in disturbed(rows, best)
    ]
    return "\n".join([f"No table. {verdict(rows, best)}", *lines, "--anyway prints it all the same."])


# ---- tables ------------------------------------------------------------------------------------------------


def key_of(row: Row) -> Key:
    """Return what a row is a measurement of, in any round."""
    return row["workload"], row["system"], row["precision"], row.get("loops", "")


def by_rounds(rows: Iterable[Row]) -> dict[Key, dict[int, Row]]:
    """Return the rows of each thing measured by their rounds, one workload after the other.

    Of the loops of a system only the best size is left. It is chosen once, by the median of its rounds, and
    then compared in every round: the best of each round would be the luckiest of ten.
    """
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    measured: dict[Key, dict[int, Row]] = {}
    for row in sorted(rows, key=lambda row: workloads.index(row["workload"])):
        measured.setdefault(key_of(row), {})[row["round"]] = row
    best: dict[Key, Key] = {}
    for key in measured:
        first = best.setdefault(key[:3], key)
        best[key[:3]] = max(first, key, key=lambda key: rates(measured[key]).median)
    return {key: measured[key] for key in best.values()}


def rates(rounds: dict[int, Row]) -> Spread:
    """Return the spread of images/s."""
    return Spread.of(row["images_per_s"] for row in rounds.values())


def ratios(measured: dict[Key, dict[int, Row]]) -> dict[tuple[Key, Key], Spread]:
    """Return how many times as fast each archive is as each that it may be compared with.

    Every ratio is of images/s, of one workload, in one precision, and of two measurements of the same round.
    A round in which requests failed makes none: what is refused is quick.
    """
    systems = {key: system_of(key) for key in measured if key[0] in WORKLOADS}
    result = {}
    for ours, system in systems.items():
        if system.kind != "archive":
            continue
        fair = opponents(system, [other for key, other in systems.items() if key[0] == ours[0]])
        for theirs in (key for key, other in systems.items() if key[0] == ours[0] and other in fair):
            shared = answered(measured[ours]).keys() & answered(measured[theirs]).keys()
            pairs = [[measured[key][k]["images_per_s"] for key in (ours, theirs)] for k in sorted(shared)]
            if pairs:
                result[ours, theirs] = Spread.of(a / b if b else float("inf") for a, b in pairs)
    return result


def answered(rounds: dict[int, Row]) -> dict[int, Row]:
    """Return the rounds in which no request failed."""
    return {k: row for k, row in rounds.items() if not row.get("failures")}


def system_of(key: Key) -> System:
    """Return the system of a measurement, in the precision that it ran in."""
    return replace(SYSTEMS[key[1]], precision=key[2])


def name_of(key: Key) -> str:
    """Return the name of a system in a table."""
    return f"{key[1]}, {key[3]}" if key[3] else key[1]


def table_of_ratios(measured: dict[Key, dict[int, Row]]) -> str:
    """Return the ratios by rounds, Markdown."""
    lines = [
        "| workload | precision | genserve | beside | times as fast | lowest to highest | rounds |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for (ours, theirs), spread in ratios(measured).items():
        cells = [ours[0], ours[2], ours[1], name_of(theirs), *spread.cells(".2f"), str(spread.n)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def table_of_figures(measured: dict[Key, dict[int, Row]]) -> str:
    """Return medians over the rounds, Markdown."""
    lines = [
        "| workload | system | precision | images/s | lowest to highest | rounds "
        "| requests/s | p50 ms | p95 ms | p99 ms | failed |",
        "|---|---|---|" + "---:|" * 8,
    ]
    for key, rounds in measured.items():
        spread, rows = rates(rounds), list(rounds.values())
        cells = [key[0], name_of(key), key[2], *spread.cells(".1f"), str(spread.n)]
        if "p50" in rows[0]:
            cells.append(f"{median(rows, 'requests_per_s'):.1f}")
            cells += [f"{median(rows, q):.0f}" for q in QUANTILES]
            cells.append(str(sum(row["failures"] for row in rows)))
        lines.append("| " + " | ".join([*cells, *[""] * (11 - len(cells))]) + " |")
    return "\n".join(lines)


def median(rows: list[Row], name: str) -> float:
    return float(statistics.median(row[name] for row in rows))


def report(rows: list[Row], best: float, anyway: bool = False) -> str:
    """Return both tables below the line that says how quiet it was.

    Args:
        best: calibration of the call, seconds.
        anyway: also if the machine was not quiet.

    Raises:
        SystemExit: the machine was not quiet.
    """
    rows = kept(rows, best)
    if not rows:
        raise SystemExit("No table: nothing was measured.")
    if disturbed(rows, best) and not anyway:
        raise SystemExit(refusal(rows, best))
    measured = by_rounds(rows)
    parts = [verdict(rows, best), "", table_of_figures(measured)]
    if compared := table_of_ratios(measured):
        title = "How many times as fast genserve is: images/s beside those of another system, by rounds."
        parts += ["", title, "", compared]
    return "\n".join(parts)
