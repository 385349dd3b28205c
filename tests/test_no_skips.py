"""The option --no-skips fails tests of every kind that does not run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from real_server import ROOT

TESTS = """
import pytest

def test_runs(): pass

def test_skips(): pytest.skip("no browser: install one")

@pytest.mark.skipif(True, reason="not here")
def test_is_marked(): pass

@pytest.mark.parametrize("x", [])
def test_has_no_cases(x): pass

@pytest.mark.xfail(reason="known fault")
def test_fails_as_expected(): assert False

@pytest.mark.xfail(reason="mended fault")
def test_passes_unexpectedly(): pass

@pytest.fixture
def browser(): pytest.skip("no browser")

def test_needs_what_is_not_there(browser): pass
"""
MODULE = 'import pytest\npytest.importorskip("no_such_module")\n\ndef test_it(): pass\n'


def outcomes(folder: Path, *flags: str) -> tuple[int, dict[str, int], str]:
    """Run the tests of a folder; return the exit status, how many had which outcome, and the output."""
    command = [sys.executable, "-m", "pytest", "-p", "no_skips", "-p", "no:cacheprovider", "-ra", *flags, "."]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "tests/helpers"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    summary = done.stdout.splitlines()[-1]
    counts = {
        word: int(n)
        for n, word in re.findall(r"(\d+) (passed|failed|skipped|xfailed|xpassed|error)", summary)
    }
    return done.returncode, counts, done.stdout


def test_every_skip_and_expected_failure_fails(tmp_path: Path) -> None:
    (tmp_path / "test_kinds.py").write_text(TESTS)
    code, counts, _ = outcomes(tmp_path)
    assert (code, counts) == (0, {"passed": 1, "skipped": 4, "xfailed": 1, "xpassed": 1})
    code, counts, output = outcomes(tmp_path, "--no-skips")
    assert (code, counts.pop("passed")) == (1, 1)
    assert sum(counts.values()) == 6
    assert "--no-skips: Skipped: no browser: install one" in output
    assert "--no-skips: expected to fail: known fault" in output


@pytest.mark.parametrize(("flags", "code"), [((), 5), (("--no-skips",), 2)])
def test_a_module_that_is_skipped_when_it_is_collected_fails(
    tmp_path: Path, flags: tuple[str, ...], code: int
) -> None:
    (tmp_path / "test_module.py").write_text(MODULE)
    assert outcomes(tmp_path, *flags)[0] == code
