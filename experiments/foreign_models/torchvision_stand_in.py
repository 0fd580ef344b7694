"""A module called torchvision, where the real one cannot be imported: enough for `import timm`, which calls nothing."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import MutableSequence, Sequence
from types import ModuleType
from typing import Any


class _Placeholder(type):
    """A class whose every attribute is such a class: `InterpolationMode.NEAREST` can be asked for."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        attribute = _Placeholder(name, (), {"__module__": cls.__module__})
        setattr(cls, name, attribute)
        return attribute


class _StandIn(ModuleType):
    """Has every name that is asked of it: a class without contents, to inherit from and to compare with."""

    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        placeholder = _Placeholder(name, (), {"__module__": self.__name__})
        setattr(self, name, placeholder)
        return placeholder


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `torchvision` and all that is said to lie in it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def supply_torchvision() -> None:
    """Make `import torchvision` work; the real one is taken where it can be imported."""
    try:
        importlib.import_module("torchvision")
    except Exception:  # noqa: BLE001 - built for another torch it fails with whatever its extension raises
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.meta_path.append(_Finder())
