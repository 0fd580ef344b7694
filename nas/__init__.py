"""Multi-objective, hardware-aware neural architecture search: from a YAML file to a front of trained networks.

Names are imported when they are first used: `nas --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nas.version import VERSION

if TYPE_CHECKING:
    from nas.api import export, load_model, retrain, run_search
    from nas.store.run import Run, load_run

_MODULES = {
    "api": ("export", "load_model", "retrain", "run_search"),
    "store.run": ("Run", "load_run"),
}

__all__ = ["Run", "export", "load_model", "load_run", "retrain", "run_search"]
__version__ = VERSION


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
