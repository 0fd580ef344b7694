"""Bounds of options, written in their types: checked where an object is made, without pydantic.

Where a file is read, pydantic checks the same types.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from annotated_types import Ge, Gt, Le, Lt, MultipleOf

Init = TypeVar("Init", bound=Callable[..., None])

FAR = 100
"""From here on an upper bound keeps out slips of the keyboard alone, and is said only to who exceeds it."""

_WORDS: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    Ge: ("at least {0.ge}", lambda value, bound: value >= bound.ge),
    Gt: ("more than {0.gt}", lambda value, bound: value > bound.gt),
    Le: ("at most {0.le}", lambda value, bound: value <= bound.le),
    Lt: ("less than {0.lt}", lambda value, bound: value < bound.lt),
    MultipleOf: ("a multiple of {0.multiple_of}", lambda value, bound: value % bound.multiple_of == 0),
}


def is_far(bound: Any, value: object) -> bool:
    """Return whether an upper bound goes without saying where `value` is refused for another reason."""
    return bool(bound >= FAR) and not (isinstance(value, int | float) and value > bound)


def check_bounds(value: object) -> None:
    """Check the fields of a dataclass against the bounds in their types; `__post_init__` calls it.

    Raises:
        ValueError: If one is outside; the message starts with the field's name.
    """
    _check(vars(value), typing.get_type_hints(type(value), include_extras=True))


def bounded(init: Init) -> Init:
    """Decorate a constructor: it checks its arguments against the bounds in their types.

    Raises:
        ValueError: If one is outside; the message starts with the argument's name.
    """

    @functools.wraps(init)
    def checked(*args: Any, **kwargs: Any) -> None:
        given = inspect.signature(init).bind(*args, **kwargs).arguments
        _check(given, typing.get_type_hints(init, include_extras=True))
        init(*args, **kwargs)

    return cast(Init, checked)


def _check(values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    for name, value in values.items():
        bounds = _bounds(types.get(name)) if isinstance(value, int | float) else []
        if not all(_WORDS[type(bound)][1](value, bound) for bound in bounds):
            told = [bound for bound in bounds if not (isinstance(bound, Le) and is_far(bound.le, value))]
            text = " and ".join(_WORDS[type(bound)][0].format(bound) for bound in told)
            raise ValueError(f"{name} must be {'positive' if text == 'more than 0' else text}, got {value}")


def _bounds(annotation: Any) -> list[Any]:
    """Return the bounds in a type, or in those of a union."""
    if typing.get_origin(annotation) is typing.Annotated:
        return [bound for bound in annotation.__metadata__ if type(bound) in _WORDS]
    is_union = typing.get_origin(annotation) in (typing.Union, type(int | str))
    return [bound for member in typing.get_args(annotation) if is_union for bound in _bounds(member)]
