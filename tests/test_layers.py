"""Imports go one way: search_spaces and latency know nobody, and within nas each layer only those before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search_spaces", "latency", "nas")
LAYERS = {
    "values": {"errors", "records", "objectives", "pareto", "metrics", "version", "scalarization"},
    "components": {
        "files", "store", "artifacts", "data", "tasks", "teacher", "onnx_teacher", "pretraining", "distillation",
        "training", "training_step", "constants", "training_data", "training_setting", "student", "averaging",
        "training_layout", "convolution_scan", "normalization", "augmentation", "features", "stopping_rules",
        "controllers", "predictors",
        "learning_curves", "proxies", "streaming",
    },
    "search": {
        "evaluation", "execution", "reference_point", "budget", "measuring", "confirmation", "search", "retraining",
        "known_costs",
    },
    "surfaces": {
        "analysis", "export", "config", "build", "dry_run", "console", "runner", "profiling", "profile_tables",
        "cli", "warm_start", "__init__", "__main__",
    },
}  # fmt: skip
ORDER = {room: level for level, rooms in enumerate(LAYERS.values()) for room in rooms}
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported_modules(path):
    """Return the dotted names that a file imports, `from a.b import c` as `a.b.c`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    for name in imported_modules(path):
        other, *rest = name.split(".")
        if other not in PACKAGES:
            continue
        if package != "nas":
            assert other == package, f"{package} must not import {name}"
        elif other == "nas" and rest and rest[0] in ORDER:
            assert ORDER[rest[0]] <= ORDER[room(path)], f"{room(path)} must not import {name}, of a later layer"


def test_every_file_of_nas_has_its_layer():
    rooms = {room(path) for path in SOURCES if path.relative_to(ROOT).parts[0] == "nas"}
    assert rooms == set(ORDER)


def test_pymoo_stays_inside_the_controllers_and_configuration_outside_the_lower_layers():
    for path in SOURCES:
        names = set(imported_modules(path))
        if "controllers" not in path.parts:
            assert not any(name.split(".")[0] == "pymoo" for name in names), path
        if path.relative_to(ROOT).parts[0] != "nas" or ORDER[room(path)] < ORDER["config"]:
            assert not any(name.split(".")[0] in {"yaml", "pydantic", "typer", "rich"} for name in names), path
