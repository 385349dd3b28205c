"""Add the option --no-skips to the tests: a skipped test, or one that is expected to fail, fails.

Without it, a continuous integration that skips a test says "passed" of something that did not run.
"""

from collections.abc import Generator
from typing import Any

import pytest

OPTION = "--no-skips"
Report = pytest.TestReport | pytest.CollectReport


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="fail where a test is skipped or expected to fail")


def failed(report: Report, config: pytest.Config) -> Report:
    """Return the report, as a failure if it is a skip, an expected failure or an unexpected success."""
    expected = getattr(report, "wasxfail", None)
    if config.getoption(OPTION) and (report.skipped or expected is not None):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else f"expected to fail: {expected}"
        report.outcome, report.longrepr = "failed", f"{OPTION}: {reason}"
        if expected is not None:
            del report.wasxfail  # type: ignore[union-attr]
    return report


# tryfirst: around pytest's own hook, which turns an expected failure into a skip
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Report]:
    return failed((yield), item.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Report]:
    return failed((yield), collector.config)
