"""Makes a release's golden store: a search over the table of `configs/`, killed in the middle of a batch.

`python -m tests.golden_stores NAME` writes `tests/golden/stores/NAME`; each release adds its own and keeps the others.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import nas
from nas.store.run_store import RunStore

ROOT = Path(__file__).parent.parent
STORES = Path(__file__).parent / "golden" / "stores"
N_ENDED = 9
CONFIGURATION = {
    "name": "golden",
    "seed": 7,
    "search_space": {"kind": "tabular", "path": "configs/toy_table.npz", "costs": ["n_params", "latency_ms"]},
    "objectives": [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "latency_ms", "direction": "minimize"},
    ],
    "controller": {"kind": "nsga2", "population_size": 4, "n_generations": 4},
    "execution": {"kind": "serial"},
    "tensorboard": False,
}


def killed_search(folder):
    """Run the search until `N_ENDED` candidates have ended, then end as a killed process does."""
    add_verdict, ended = RunStore.add_verdict, []

    def counted(store, *arguments, **options):
        if len(ended) == N_ENDED:
            raise KeyboardInterrupt
        add_verdict(store, *arguments, **options)
        ended.append(arguments[0])

    with mock.patch.object(RunStore, "add_verdict", counted):
        try:
            nas.run_search(CONFIGURATION, folder)
        except KeyboardInterrupt:
            return
    raise AssertionError("the search came to its end")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        killed_search(Path(scratch) / "run")
        target = STORES / sys.argv[1]
        target.mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "store.sqlite"):
            shutil.copyfile(Path(scratch) / "run" / name, target / name)
