"""Multi-objective, hardware-aware neural architecture search: from a YAML file to a front of trained networks."""

from nas.analysis.run import Run
from nas.runner import export, load_run, retrain, run_search
from nas.version import VERSION

__all__ = ["Run", "export", "load_run", "retrain", "run_search"]
__version__ = VERSION
