"""From the `kind` of a section to its class: built in, or a user's own where the file is trusted."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latency.devices import DEVICES
from latency.devices.base import Device
from nas.config.options import nearest, sentence
from nas.config.yaml_source import Fault, KeyPath, key_text
from nas.controllers import CONTROLLERS
from nas.controllers.base import Controller
from nas.data import DATASETS
from nas.data.base import Dataset
from nas.execution import EXECUTORS
from nas.tasks import TASKS
from nas.teacher import TEACHERS
from search_spaces import SEARCH_SPACES
from search_spaces.base import SearchSpace

_OBJECT_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Kinds:
    """What the `kind` of one section may be.

    Attributes:
        classes: Those built in, by name.
        base: What a user's own class must derive from; `None` where there is no such thing.
        supplied: Parameters of their constructors that the program gives.
    """

    classes: Mapping[str, type]
    base: type | None = None
    supplied: frozenset[str] = frozenset()


KINDS: dict[str, Kinds] = {
    "task": Kinds(TASKS, supplied=frozenset({"class_names", "ignore_index"})),
    "data": Kinds(DATASETS, Dataset),
    "teacher": Kinds(TEACHERS, supplied=frozenset({"in_channels", "n_classes", "seed"})),
    "search_space": Kinds(SEARCH_SPACES, SearchSpace),
    "devices": Kinds(DEVICES, Device),
    "controller": Kinds(CONTROLLERS, Controller),
    "execution": Kinds(EXECUTORS),
}
"""By section of the configuration."""

REFERENCE_TASKS = {
    "unet": "segmentation",
    "deeplabv3_mobilenetv3": "segmentation",
    "enet": "segmentation",
    "resnet": "classification",
}
"""The task that each reference model does."""


def kind_class(section: str, kind: str) -> type[Any]:
    """Return the class that a checked configuration names; `nas.build` makes objects of it.

    Raises:
        KeyError: If there is no such kind or section.
        ImportError: If a user's own module is gone since the check.
    """
    return imported(kind) if ":" in kind else KINDS[section].classes[kind]


def imported(name: str) -> Any:
    """Import the object called `package.module:name`. Runs code: only for files that the user trusts.

    Raises:
        ImportError: If there is no such module or nothing of that name in it.
        Exception: Whatever the module raises when it is imported.
    """
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ImportError(f"module {module_name!r} has no {attribute!r}") from None


def find_class(kinds: Kinds, kind: str, path: KeyPath, trust_code: bool) -> tuple[type | None, list[Fault]]:
    """Return the class for `kind`, which stands at `path`, or why there is none."""
    if ":" not in kind or kinds.base is None:
        if kind in kinds.classes:
            return kinds.classes[kind], []
        text = f"unknown kind {kind!r}.{nearest(kind, kinds.classes)}"
        return None, [Fault(path, sentence(path, text))]
    found, faults = find_object(kind, path, trust_code)
    if not faults and not (isinstance(found, type) and issubclass(found, kinds.base)):
        text = f"{kind!r} must be a class derived from {kinds.base.__module__}.{kinds.base.__name__}."
        return None, [Fault(path, sentence(path, text))]
    return found, faults


def find_object(name: str, path: KeyPath, trust_code: bool) -> tuple[Any, list[Fault]]:
    """Return what `package.module:name`, which stands at `path`, names, or why it cannot be had."""
    if not _OBJECT_NAME.fullmatch(name):
        text = f"{key_text(path)} must be written as package.module:name, got {name!r}."
        return None, [Fault(path, text)]
    if not trust_code:
        advice = "pass --trust-code (trust_code=True in Python) if you trust this file."
        return None, [Fault(path, f"{key_text(path)} names Python code ({name!r}); {advice}")]
    try:
        return imported(name), []
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything while it is imported
        text = f"cannot import {name!r}: {type(error).__name__}: {str(error).rstrip('.')}."
        return None, [Fault(path, sentence(path, text))]
