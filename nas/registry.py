"""From the `kind` of a section to its class: built in, or a user's own, imported by name."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from latency.devices import DEVICES
from latency.devices.base import Device
from nas.controllers import CONTROLLERS
from nas.controllers.base import Controller
from nas.data import DATASETS
from nas.data.base import Dataset
from nas.execution import EXECUTORS, Executor
from nas.pretrained.teacher import TEACHERS
from nas.tasks import TASKS, Task
from search_spaces import SEARCH_SPACES
from search_spaces.base import SearchSpace

OBJECT_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""The pattern of `package.module:name`."""


@dataclass(frozen=True)
class Kinds:
    """What the `kind` of one section may be.

    Attributes:
        classes: Those built in, by name.
        base: What a user's own class must derive from.
        supplied: Parameters of their constructors that the program gives.
        may_be_function: Whether a user's function that returns an object of `base` does, too.
    """

    classes: Mapping[str, type]
    base: type
    supplied: frozenset[str] = frozenset()
    may_be_function: bool = False


KINDS: dict[str, Kinds] = {
    "task": Kinds(TASKS, Task, supplied=frozenset({"class_names", "ignore_index"})),
    "data": Kinds(DATASETS, Dataset),
    "teacher": Kinds(
        TEACHERS, nn.Module, supplied=frozenset({"in_channels", "n_classes", "seed"}), may_be_function=True
    ),
    "search_space": Kinds(SEARCH_SPACES, SearchSpace),
    "devices": Kinds(DEVICES, Device),
    "controller": Kinds(CONTROLLERS, Controller),
    "execution": Kinds(EXECUTORS, Executor),
}
"""By section of the configuration."""


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


def find_object(name: str, trust_code: bool, key: str = "") -> Any:
    """Import the object called `package.module:name`, if the file that gives it for `key` is trusted.

    Raises:
        ValueError: If it is not or there is no such object; the message starts with `key`.
    """
    if not re.fullmatch(OBJECT_NAME, name):
        raise ValueError(f"{key} must be written as package.module:name, got {name!r}".lstrip())
    if not trust_code:
        advice = "pass --trust-code (trust_code=True in Python) if you trust this file"
        raise ValueError(f"{key} names Python code ({name!r}); {advice}".lstrip())
    try:
        return imported(name)
    except Exception as error:
        text = f"cannot import {name!r}: {type(error).__name__}: {str(error).rstrip('.')}"
        raise ValueError(f"{key}: {text}" if key else text) from error
