"""Bounds of a dataclass's fields, written in their types, for classes that must not import pydantic."""

import typing
from collections.abc import Callable
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

_WORDS: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    Ge: ("at least", lambda value, bound: value >= bound.ge),
    Gt: ("more than", lambda value, bound: value > bound.gt),
    Le: ("at most", lambda value, bound: value <= bound.le),
    Lt: ("less than", lambda value, bound: value < bound.lt),
}


def check_bounds(value: object) -> None:
    """Check the fields of a dataclass against the bounds in their types, as pydantic does where a file is read.

    Raises:
        ValueError: If one is outside; the message starts with the field's name.
    """
    for name, annotation in typing.get_type_hints(type(value), include_extras=True).items():
        given = getattr(value, name)
        bounds = [] if given is None else _bounds(annotation)
        if all(_WORDS[type(bound)][1](given, bound) for bound in bounds):
            continue
        words = [f"{_WORDS[type(bound)][0]} {getattr(bound, type(bound).__name__.lower())}" for bound in bounds]
        text = "positive" if words == ["more than 0"] else " and ".join(words)
        raise ValueError(f"{name} must be {text}, got {given}")


def _bounds(annotation: Any) -> list[Any]:
    """Return the bounds in a type, or in that of an optional."""
    if typing.get_origin(annotation) is typing.Annotated:
        return [bound for bound in annotation.__metadata__ if type(bound) in _WORDS]
    members = [] if isinstance(annotation, str) else typing.get_args(annotation)
    return [bound for member in members for bound in _bounds(member)]
