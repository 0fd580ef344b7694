"""From the `kind` of a section to its class: built in, or a user's own where the file is trusted."""

import re
from typing import Any

from nas.config.options import nearest, sentence
from nas.config.yaml_source import Fault, KeyPath, key_text
from nas.registry import Kinds, imported

_OBJECT_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


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
