"""What tests of commands share: a way to run them, and a finished run."""

import shutil
import sys

import pytest

import nas
from nas import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """Return a function that runs `nas ...` in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of the finished run, with its artifacts, to be written to."""
    shutil.copytree(tiny_run.parent, tmp_path / "runs")
    return tmp_path / "runs" / tiny_run.name


@pytest.fixture
def run(tiny_run):
    return nas.load_run(tiny_run)
