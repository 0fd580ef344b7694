"""Multi-objective, hardware-aware neural architecture search: from a YAML file to a front of trained networks."""

from nas.api import export, load_run, retrain, run_search
from nas.store.run import Run
from nas.version import VERSION

__all__ = ["Run", "export", "load_run", "retrain", "run_search"]
__version__ = VERSION
