"""A plugin of pytest that writes down how each test ended as soon as it did: what is known when time is up."""

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the file's name to pytest's options."""
    parser.addoption("--outcomes", type=Path, help="append a line of JSON for each test that ended")


def pytest_configure(config: pytest.Config) -> None:
    """Start to write."""
    if config.option.outcomes is not None:
        config.pluginmanager.register(_Outcomes(config.option.outcomes))


class _Outcomes:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the end of a test: of its call, or of what came before or after where that decided."""
        if report.when == "call" or report.outcome != "passed":
            self._write(report.nodeid, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write down a file that could not be read."""
        if report.failed:
            self._write(report.nodeid, report)

    def _write(self, test: str, report: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test, "outcome": report.outcome, "reason": _reason(report)}) + "\n")


def _reason(report: Any) -> str:
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):  # of a skip: file, line and reason
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext.strip()
    return str(text)[-500:]
