import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from genserve.measure import records


def test_a_line_is_added_behind_whole_and_torn_ones(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    records.append(path, {"a": 1})
    records.append(path, {"b": 2})
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n'
    with path.open("a") as file:
        file.write('{"torn": ')
    records.append(path, {"c": 3})
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n{"torn": \n{"c": 3}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        records.append(path, {"d": float("nan")})
    assert json.loads(path.read_text().splitlines()[-1]) == {"c": 3}


def test_a_line_that_a_full_disk_cuts_short_is_an_error_that_names_the_file(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    """The system writes what there is room for and calls that a success."""
    path = tmp_path / "evaluations.jsonl"
    records.append(path, {"a": 1})
    with full_disk(20), pytest.raises(OSError, match=r"No space left on device: .*evaluations\.jsonl"):
        records.append(path, {"a line": "that is longer than there is room for"})
    records.append(path, {"b": 2})
    assert [path.read_text().splitlines()[k] for k in (0, -1)] == ['{"a": 1}', '{"b": 2}']


def test_the_revision_is_that_of_the_file_and_says_what_else_changed(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "package").mkdir()
    ours, log = tmp_path / "package/ours.py", tmp_path / "evaluations.jsonl"
    ours.write_text("a = 1")
    assert records.revision(ours) is None
    git("init", "--quiet")
    assert records.revision(ours) is None  # git does not know the file
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    clean = {"revision": git("rev-parse", "HEAD"), "dirty": False}
    assert records.revision(ours) == clean
    log.write_text("{}")
    assert records.revision(ours) == clean  # a record is no change
    (tmp_path / "other.py").write_text("b = 1")
    assert records.revision(ours) == clean | {"dirty": True}


def test_repeats_become_mean_and_standard_deviation() -> None:
    rows = [
        {
            "name": "heun:2",
            "seed": seed,
            "n": 9,
            "nfe": 3,
            "frechet_distance": value,
            "kernel_distance": -value,
        }
        for seed, value in ((5, 1.0), (6, 2.0), (7, 6.0))
    ]
    assert records.together(rows[:1]) == rows[0]
    row = records.together(rows)
    std = 7**0.5  # of 1, 2, 6 about 3: (4 + 1 + 9) / 2
    assert (row["frechet_distance"], row["kernel_distance"]) == (3, -3)
    assert row["std"] == {"frechet_distance": pytest.approx(std), "kernel_distance": pytest.approx(std)}
    assert (row["name"], row["n"], row["nfe"]) == ("heun:2", 9, 3)
    assert row["repeats"][2] == {"seed": 7, "frechet_distance": 6.0, "kernel_distance": -6.0}
    (text,) = records.tables([{"name": "held-out", "n": 9, "frechet_distance": 0.5}, row])
    assert "3.000 ± 2.646" in text
    assert "-3000.000 ± 2645.751" in text
    assert len(set(map(len, text.splitlines()))) == 1


def test_a_second_table_shows_the_numbers_of_inception() -> None:
    row = {"name": "a", "n": 9, "inception_frechet_distance": 3.14159, "inception_kernel_distance": 0.002}
    first, second = records.tables([row])
    assert "3.14" not in first
    assert second.split()[-5:] == ["FID", "KIDx1000", "a", "3.14", "2.000"]
