"""The rules of the layout: no large file or function, and an order of folders that lint-imports keeps."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "search_spaces", "latency")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_no_file_has_over_400_lines():
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n_lines for name, n_lines in sizes.items() if n_lines > 400} == {}


def test_no_function_has_over_60_lines():
    sizes = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n_lines for name, n_lines in sizes.items() if n_lines > 60} == {}


def test_at_most_nine_modules_stand_loose_in_nas():
    loose = [path.stem for path in (ROOT / "nas").glob("*.py") if path.stem not in ("__init__", "__main__")]
    assert len(loose) <= 9, loose


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_stands_in_the_order_of_its_package(package):
    contract = next(one for one in CONTRACTS if one.get("containers") == [package])
    ordered = {name.strip() for layer in contract["layers"] for name in layer.split(":")}
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert folders <= ordered
    assert contract["exhaustive"] is True  # so that `lint-imports` refuses what is missing


# One import against the order in each package, between folders that are next to each other; and pymoo elsewhere.
PLANTED = {
    "nas/values/objectives.py": ("from nas.tasks import base", "rooms of nas"),
    "nas/search/loop.py": ("import nas.config", "rooms of nas"),
    "search_spaces/blocks/cells.py": ("from search_spaces.drawing import svg", "rooms of search_spaces"),
    "latency/graph/tracer.py": ("from latency.counting import complexity", "rooms of latency"),
    "latency/errors.py": ("import nas.errors", "the search joins them"),
    "nas/analysis/curves.py": ("import pymoo.core.problem", "pymoo stays inside the controllers"),
}


@pytest.fixture(scope="module")
def copied_packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("name", PLANTED)
def test_an_import_against_the_order_is_found(copied_packages, name):
    line, contract = PLANTED[name]
    path = copied_packages / name
    content = path.read_text()
    path.write_text(f"{content}\n\n{line}\n")
    try:
        said = lint_imports(copied_packages)
    finally:
        path.write_text(content)
    assert said.returncode == 1
    assert f"{contract} BROKEN" in said.stdout
    assert said.stdout.count(" BROKEN") == 1, said.stdout


def test_the_copy_keeps_the_order_when_nothing_is_planted(copied_packages):
    assert lint_imports(copied_packages).returncode == 0


def lint_imports(folder):
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
