"""Options of a kind: a pydantic model derived from its class's constructor, and faults in our own words."""

import dataclasses
import difflib
import functools
import inspect
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Strict,
    ValidationError,
    WrapValidator,
    create_model,
)
from pydantic_core import PydanticCustomError

from nas.config.yaml_source import Fault, KeyPath, key_text

T = TypeVar("T")

_MAX_LISTED = 12


def nearest(name: object, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"`, or the known names if none is near; starts with a blank."""
    names = sorted(known)
    matches = difflib.get_close_matches(str(name), names, n=1)
    if matches:
        return f" Did you mean {matches[0]!r}?"
    if not names:
        return " There are none."
    more = ", ..." if len(names) > _MAX_LISTED else ""
    return f" Known: {', '.join(names[:_MAX_LISTED])}{more}."


def shown(value: object) -> str:
    """Return `value` as a fault shows it: short, and in YAML's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    return reprlib.repr(value)


def sentence(path: KeyPath, message: str) -> str:
    """Return `message` about the value at `path`, with the key in front unless it is the whole file."""
    return f"{key_text(path)}: {message}" if path else message


def must_be(path: KeyPath, what: str, value: object) -> Fault:
    """Return the fault that the value at `path` is not what it must be."""
    return Fault(path, f"{key_text(path)} must be {what}, got {shown(value)}.")


def validate(
    model: type[BaseModel], values: Mapping[str, Any], path: KeyPath, also_known: Collection[str] = ()
) -> tuple[dict[str, Any] | None, list[Fault]]:
    """Check `values`, which stand at `path`, against `model`.

    Args:
        model: From `options_model`.
        values: Keys and values as the file gives them.
        path: Where they stand.
        also_known: Keys that belong there but are read elsewhere; proposed for misspelled ones.

    Returns:
        All options with defaults filled in, or `None` if there is a fault; and the faults.
    """
    try:
        instance = model.model_validate(dict(values))
    except ValidationError as error:
        return None, _faults(error, model, path, also_known)
    return {name: getattr(instance, name) for name in model.model_fields}, []


def construct(build: Callable[[], T], options: Collection[str], path: KeyPath) -> tuple[T | None, list[Fault]]:
    """Call `build`, which makes the object of the section at `path`, to let it check its own options.

    A `ValueError` or `TypeError` whose message starts with the name of one of `options` is a fault of that
    key; any other is one of the section.
    """
    try:
        return build(), []
    except (ValueError, TypeError) as error:
        name, message = _blame(str(error), options)
        at = path if name is None else (*path, name)
        return None, [Fault(at, f"{key_text(path)}.{message}" if name else sentence(path, message))]


def _blame(message: str, options: Collection[str]) -> tuple[str | None, str]:
    """Return the option that `message` starts with, if any, and the message as a sentence."""
    first = re.match(r"\w+", message)
    text = message.strip() or "the options were refused"
    text = text if text[-1] in ".?!" else f"{text}."
    return (first[0] if first and first[0] in options else None), text


@functools.cache
def options_model(cls: type, supplied: frozenset[str] = frozenset()) -> type[BaseModel]:
    """Return the frozen model of what a configuration may say about `cls`: its constructor's parameters.

    A parameter whose type YAML cannot write (a clock, say) or whose name starts with an underscore is no
    option. Types are meant: no text becomes a number, no `true` a 1; an integer may stand for a float, a
    list for a tuple, text for a path.

    Args:
        cls: A class, often a dataclass.
        supplied: Parameters that the program gives.

    Raises:
        TypeError: If a parameter without a default is no option and is not supplied either.
    """
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(cls, eval_str=True).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in supplied:
            continue
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        required = parameter.default is parameter.empty
        field = None if parameter.name.startswith("_") else _field_type(annotation)
        if field is not None:
            fields[parameter.name] = (field, ... if required else _default(cls, parameter))
        elif required:
            raise TypeError(f"{cls.__name__}.{parameter.name}: a configuration cannot give {annotation!r}")
    config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())
    model: type[BaseModel] = create_model(f"{cls.__name__}Options", __config__=config, **fields)
    return model


def _default(cls: type, parameter: inspect.Parameter) -> object:
    """Return the default value; a dataclass's factory is called (its values are immutable by our rules)."""
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
                return field.default_factory()
    return parameter.default


_SCALARS: dict[Any, tuple[Any, str, str]] = {
    bool: (Annotated[bool, Strict()], "true or false", "true or false"),
    int: (Annotated[int, Strict()], "an integer", "integers"),
    float: (Annotated[float, Strict(), AllowInfNan(False)], "a finite number", "finite numbers"),
    str: (Annotated[str, Strict()], "text", "texts"),
    Path: (Path, "a path", "paths"),
    types.NoneType: (None, "null", "nulls"),
}


def _field_type(annotation: Any) -> Any:  # noqa: PLR0911 - one for each form of a type
    """Return `annotation` with faults in our words; `None` if YAML has no way to write its values."""
    if annotation is Any:
        return Any
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _field_type(arguments[0])
    if isinstance(annotation, type) and annotation in _SCALARS:
        return _worded(_SCALARS[annotation][0], annotation)
    if origin is Literal:
        return Annotated[annotation, BeforeValidator(_check_choice(arguments))]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = tuple(member.value for member in annotation)
        return Annotated[annotation, BeforeValidator(_check_choice(choices))]
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _nested(annotation)
    parts = [argument if argument is ... else _field_type(argument) for argument in arguments]
    if not parts or any(part is None for part in parts):
        return None
    if origin in (Union, types.UnionType):
        return _union(annotation, arguments, parts)
    if origin in (tuple, list, Sequence):
        return _list(annotation, origin, parts)
    if origin in (dict, Mapping):
        return _worded(dict[str, parts[1]], annotation)  # type: ignore[valid-type]  # made at run time
    return None


def _union(annotation: Any, arguments: Sequence[Any], parts: Sequence[Any]) -> Any:
    """Return the union; with only `None` beside it, a type keeps its own, more exact faults."""
    others = [part for argument, part in zip(arguments, parts, strict=True) if argument is not types.NoneType]
    if len(others) == 1:
        return others[0] | None if isinstance(others[0], type) else typing.Optional[others[0]]  # noqa: UP045
    return _worded(Union[tuple(parts)], annotation, whole=True)  # noqa: UP007


def _list(annotation: Any, origin: Any, parts: Sequence[Any]) -> Any:
    if origin is tuple:
        inner: Any = tuple[tuple(parts)]  # type: ignore[misc]  # made at run time
    else:
        inner = list[parts[0]] if origin is list else tuple[parts[0], ...]  # type: ignore[valid-type]
    return Annotated[_worded(inner, annotation), BeforeValidator(_only_lists(_describe(annotation)))]


def _only_lists(what: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _refusal(what, value)
        return value

    return check


def _nested(cls: type) -> Any:
    """Return the type of a dataclass that the file gives as a mapping of its options."""
    model = options_model(cls)

    def build(options: Any) -> Any:
        values = {name: getattr(options, name) for name in model.model_fields}
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            name, text = _blame(str(error), values)
            kind = "named" if name else "whole"
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    {
                        "type": PydanticCustomError(kind, "{text}", {"text": text}),
                        "loc": (name,) if name else (),
                        "input": None,
                    }
                ],
            ) from error

    def only_mappings(value: Any) -> Any:
        if isinstance(value, cls):
            return {name: getattr(value, name) for name in model.model_fields}
        if not isinstance(value, Mapping):
            raise _refusal("a mapping", value)
        return value

    return Annotated[model, AfterValidator(build), BeforeValidator(only_mappings)]


def _worded(inner: Any, annotation: Any, whole: bool = False) -> Any:
    """Return `inner` with one fault in our words; faults inside a list keep their place unless `whole`."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            first = error.errors()[0]
            is_short = first["type"] == "missing" and isinstance(first["loc"][-1], int)  # of a list's items
            if first["loc"] and not whole and not is_short:
                raise
            raise _refusal(_describe(annotation), value) from None

    return Annotated[inner, WrapValidator(check)]


def _check_choice(choices: tuple[Any, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        plain = value.value if isinstance(value, Enum) else value
        # 1 == True, so that the types have to agree as well.
        if any(plain == choice and type(plain) is type(choice) for choice in choices):
            return value
        hint = nearest(value, map(str, choices)) if isinstance(value, str) else ""
        raise _refusal(_one_of(choices), value, hint if hint.startswith(" Did") else "")

    return check


def _refusal(what: str, value: object, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError(
        "must_be", "must be {what}, got {got}.{hint}", {"what": what, "got": shown(value), "hint": hint}
    )


def _one_of(choices: Iterable[Any]) -> str:
    names = [shown(choice) for choice in choices]
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _describe(annotation: Any) -> str:
    """Return what a value of `annotation` is, in words that follow "must be"."""
    if isinstance(annotation, type) and annotation in _SCALARS:
        return _SCALARS[annotation][1]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0])
    if origin is Literal:
        return _one_of(arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin in (tuple, list, Sequence):
        count = "" if origin is not tuple or arguments[-1] is ... else f"{len(arguments)} "
        plural = _SCALARS[arguments[0]][2] if isinstance(arguments[0], type) and arguments[0] in _SCALARS else "items"
        return f"a list of {count}{plural}"
    return "a mapping"


def _faults(error: ValidationError, model: type[BaseModel], path: KeyPath, also_known: Collection[str]) -> list[Fault]:
    """Return pydantic's errors as ours; a missing key that a misspelled one means is not named again."""
    faults, meant = [], set()
    for item in error.errors():
        location: KeyPath = item["loc"]
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1]) | (set(also_known) if len(location) == 1 else set())
            hint = nearest(location[-1], known)
            meant |= {(*location[:-1], key) for key in known if hint == f" Did you mean {key!r}?"}
            text = sentence((*path, *location[:-1]), f"unknown key {location[-1]!r}.{hint}")
            faults.append(Fault((*path, *location), text))
    for item in error.errors():
        location, kind = item["loc"], item["type"]
        at = (*path, *location)
        if kind == "missing" and location not in meant:
            faults.append(Fault(at, sentence(at[:-1], f"missing key {location[-1]!r}.")))
        elif kind == "named":
            faults.append(Fault(at, f"{key_text(at[:-1])}.{item['msg']}"))
        elif kind == "must_be":
            faults.append(Fault(at, f"{key_text(at)} {item['msg']}"))
        elif kind not in ("missing", "extra_forbidden"):
            faults.append(Fault(at, sentence(at, item["msg"])))
    return faults


def _known_keys(model: type[BaseModel], location: KeyPath) -> set[str]:
    """Return the keys of the model at `location` inside `model`."""
    for key in location:
        if isinstance(key, int):
            continue
        nested = _model_inside(model.model_fields[str(key)].annotation)
        if nested is None:
            return set()
        model = nested
    return set(model.model_fields)


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not typing.get_args(annotation) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        if (found := _model_inside(argument)) is not None:
            return found
    return None


def is_finite_number(value: object) -> bool:
    """Whether `value` is a number that can be compared with readings; `true` is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False
