"""What the commands import, how they are installed and completed, and what `import nas` offers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nas
import search_spaces
from experiments.startup.__main__ import empty_application
from nas.cli.app import app
from nas.data.published_layouts import PUBLISHED_LAYOUTS

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "sklearn", "scipy", "pymoo", "onnx", "onnxruntime", "onnxscript", "pandas", "ray", "tensorboard"}
HEAVY_UNLESS_DRAWING = HEAVY | {"matplotlib", "PIL"}


def modules(module, *arguments, folder):
    """Return the top-level names that `python -m module arguments`, a successful command, imports."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    command = [sys.executable, "-X", "importtime", "-m", module, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    found = re.findall(r"^import time: *\d+ \| *\d+ \| *([\w.]+)$", process.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in found}


def test_help_imports_no_package_beyond_those_of_an_empty_application(tmp_path):
    (tmp_path / "empty_application.py").write_text(empty_application())
    beyond = modules("nas", "--help", folder=tmp_path) - modules("empty_application", "--help", folder=tmp_path)
    assert "nas" in beyond
    assert beyond - {"nas"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(("command", "heavy"), [("show", HEAVY_UNLESS_DRAWING), ("plot", HEAVY)])
def test_a_run_is_shown_without_heavy_libraries(command, heavy, tiny_run, tmp_path):
    found = modules("nas", command, tiny_run, folder=tmp_path)
    assert {"nas", "numpy"} <= found
    assert found & heavy == set()


def test_the_empty_application_has_as_many_commands(tmp_path):
    (tmp_path / "empty_application.py").write_text(empty_application())
    command = [sys.executable, "empty_application.py", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    n_commands = len(re.findall(r"^│ (?:command|group)\d", shown, re.MULTILINE))
    assert n_commands == len(re.findall(r"^│ [a-z]\w+  ", CliRunner().invoke(app, ["--help"]).stdout, re.MULTILINE))
    assert n_commands == 24


def test_the_version_is_printed():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"pareto-nas {nas.__version__}\n")


@pytest.mark.parametrize(("words", "expected"), [("nas sea", ["search"]), ("nas analyse ", ["curves", "predictor"])])
def test_bash_completes_commands(words, expected, monkeypatch):
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    monkeypatch.setenv("_NAS_COMPLETE", "complete_bash")
    result = CliRunner().invoke(app, [], prog_name="nas")
    assert (result.exit_code, sorted(result.stdout.split())) == (0, expected)


def test_the_help_of_data_prepare_names_every_layout():
    shown = CliRunner().invoke(app, ["data", "prepare", "--help"]).stdout
    assert {name for name in PUBLISHED_LAYOUTS if name not in shown} == set()


@pytest.mark.parametrize("package", [nas, search_spaces])
def test_every_public_name_is_found_when_it_is_used(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_no_public_name_of_nas_is_hidden_by_a_module_of_that_name():
    assert callable(nas.export)
    folders = {entry.stem for entry in (ROOT / "nas").iterdir()}
    assert folders & set(nas.__all__) == set()
