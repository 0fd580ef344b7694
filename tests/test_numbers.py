"""Searches whose every number is known: what changes the code must not change these by accident.

`python -m tests.test_numbers` writes the golden file anew: only for a change that is meant to change results.
"""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import nas

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "searches.json"
COSTS = {"n_params", "n_macs", "latency_ms"}
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pymoo", "moocore")
SMALL_QUICKSTART = {
    "data": {"kind": "synthetic_faces", "image_size": 32, "n_train": 64, "n_validation": 32},
    "teacher": {"kind": "unet", "width": 8, "recipe": {"epochs": 1, "batch_size": 8}},
    "pretraining": {"epochs": 1, "batch_size": 8},
    "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.02, "device": "cpu"},
    "devices": {"cpu": {"kind": "fake"}},
    "constraints": [{"metric": "n_params", "max": 300_000}],
    "controller": {"kind": "nsga2", "population_size": 6, "n_generations": 3},
    "execution": {"kind": "serial"},
    "tensorboard": False,
}


def configurations():
    tabular = yaml.safe_load((ROOT / "configs" / "tabular.yaml").read_text())
    tabular["search_space"]["path"] = str(ROOT / "configs" / "toy_table.npz")
    tabular["controller"]["n_candidates"] = 40
    quickstart = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text()) | SMALL_QUICKSTART
    return {"tabular": tabular | {"tensorboard": False}, "quickstart": quickstart}


def machine():
    """Return what bits of floating-point sums depend on: processor and libraries."""
    cpu = Path("/proc/cpuinfo")
    words = cpu.read_text().split("\n\n")[0].splitlines() if cpu.exists() else [platform.processor()]
    fixed = [line for line in words if line.startswith(("cpu family", "model", "stepping", "cache size", "flags"))]
    texts = [*fixed, *(f"{package} {version(package)}" for package in PACKAGES)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def outcome(run):
    """Return genotype, state and metrics of every candidate, floats to the last bit."""
    return [
        [list(r.candidate.genotype.genes), str(r.state), {m: float(v).hex() for m, v in sorted(r.metrics.items())}]
        for r in run.records
    ]


def searched(name, folder):
    return outcome(nas.run_search(configurations()[name], folder / name))


@pytest.mark.parametrize("name", ["tabular", "quickstart"])
def test_a_search_gives_the_numbers_that_it_always_gave(name, tmp_path):
    golden = json.loads(GOLDEN.read_text())
    found, expected = searched(name, tmp_path), golden[name]
    if machine() == golden["machine"]:
        assert found == expected
        return
    # Another processor or library rounds otherwise, and trainings of a few steps go apart: costs are equal anyway.
    assert len(found) == len(expected)
    for (genes, state, metrics), (known_genes, known_state, known) in zip(found[:6], expected[:6], strict=True):
        assert (genes, state, metrics.keys()) == (known_genes, known_state, known.keys())
        for metric in COSTS & metrics.keys():
            assert float.fromhex(metrics[metric]) == pytest.approx(float.fromhex(known[metric]), rel=1e-12), metric


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        searches = {name: searched(name, Path(scratch)) for name in configurations()}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"machine": machine(), **searches}) + "\n")
