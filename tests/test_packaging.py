"""What is installed: the packages that a wheel holds, the lowest versions, and a search away from the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

import nas

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("nas", "search_spaces", "latency")


def folders_with_code():
    """Return the dotted names of all folders of the three packages that hold Python files."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.parent.relative_to(ROOT).parts) for path in files}


def test_every_folder_with_code_is_packed_and_nothing_else():
    options = PROJECT["tool"]["setuptools"]["packages"]["find"]
    assert options["namespaces"] is False
    assert set(find_packages(str(ROOT), include=options["include"])) == folders_with_code()


def test_the_files_that_code_reads_are_packed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["nas.reporting"]
    folder = ROOT / "nas" / "reporting"
    assert {path for pattern in patterns for path in folder.glob(pattern)} >= set((folder / "static").iterdir())


def test_the_lowest_versions_are_those_of_the_project():
    extras = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["project"]["dependencies"], *extras["parquet"], *extras["ray"], *extras["remote"]]
    bounds = {}
    for requirement in map(Requirement, texts):
        (bounds[requirement.name],) = (s.version for s in requirement.specifier if s.operator == ">=")
    del bounds["torch"]
    lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
    assert {line for line in lines if line[0] != "#"} == {f"{name}=={version}" for name, version in bounds.items()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the checkout, which the build does not touch."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "runs", "build", "dist", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source")
    (path,) = folder.glob("*.whl")
    return path


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.mark.slow
def test_the_files_of_the_report_are_packed(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    folder = ROOT / "nas" / "reporting" / "static"
    assert {str(path.relative_to(ROOT)) for path in folder.iterdir()} <= packed


@pytest.mark.slow  # has fast siblings above
def test_a_wheel_holds_the_packages_their_data_and_the_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, f"pareto_nas-{nas.__version__}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {f"pareto_nas-{nas.__version__}.dist-info/licenses/LICENSE", "latency/serving/requirements.txt"} <= set(
        names
    )
    assert {".".join(Path(name).parts[:-1]) for name in names if name.endswith(".py")} == folders_with_code()


@pytest.mark.slow
def test_a_search_runs_from_an_installed_wheel_in_another_folder(wheel, tmp_path):
    pip("install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    work = tmp_path / "work"
    work.mkdir()
    for name in ("tabular.yaml", "toy_table.npz"):
        shutil.copy(ROOT / "configs" / name, work)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*command):
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=True).stdout

    origin = run(sys.executable, "-c", "import nas, search_spaces, latency as l; print(nas.__file__, l.__file__)")
    assert origin.count(str(tmp_path / "site")) == 2
    nas_script = tmp_path / "site" / "bin" / "nas"
    assert run(sys.executable, nas_script, "--version") == f"pareto-nas {nas.__version__}\n"
    options = ("--set", "search_space.path=toy_table.npz", "--set", "controller.n_candidates=40")
    out = run(sys.executable, nas_script, "search", "tabular.yaml", *options)
    assert "40 candidates: 40 complete." in out
    assert len(nas.load_run(work / "runs" / "tabular").records) == 40
