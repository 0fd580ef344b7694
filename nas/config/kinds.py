"""Sections with a `kind` as discriminated unions: the built-in classes, or a user's own where the file is trusted."""

import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
    ValidationInfo,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

from nas.registry import KINDS, OBJECT_NAME, find_object

T = TypeVar("T")

_OWN_CLASS = "module:Class"  # the tag of all kinds that are not built in


class Section(BaseModel):
    """What a mapping of the file may hold. Types are meant: no text becomes a number, no `true` a 1.

    Read by `model_validate_json`: in JSON a list stands for a tuple and text for a path, strictly.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        defer_build=True,  # most are built only as parts of others
    )


@dataclasses.dataclass(frozen=True)
class Component(Generic[T]):
    """A section with a kind, and the object that it describes. Equal where the file would be.

    Attributes:
        kind: A name in the section's registry, or a user's own class as `package.module:ClassName`.
        options: The arguments of the class's constructor that the file may give, all of them.
        cls: The class.
        instance: The object, made once. `None` for a task whose class names cannot be read yet: its data is gone.
    """

    kind: str
    options: Mapping[str, Any]
    cls: type[Any] = dataclasses.field(compare=False, repr=False)
    instance: T = dataclasses.field(compare=False, repr=False)

    @classmethod
    def of(cls, kind: str, options: dict[str, Any], made: type[Any], **shared: Any) -> Self:
        """Return the component with its object, a `made` of `options` alone."""
        return cls(kind, options, made, made(**options), **shared)


@dataclasses.dataclass(frozen=True)
class KindOf:
    """Annotates a field of the file that holds a section with a kind.

    Attributes:
        section: In `KINDS`.
        make: Called with kind, options and class, and with the values of `shared` by name.
        shared: Keys that the section takes beside the options of its kind.
    """

    section: str
    make: Callable[..., Any] = Component.of
    shared: type[Section] = Section

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a union over the built-in kinds and a user's own class, followed by `make`."""
        classes = KINDS[self.section].classes
        members = [Annotated[self.options(cls, kind), Tag(kind)] for kind, cls in classes.items()]
        name = Annotated[str, Field(json_schema_extra={"pattern": f"^{OBJECT_NAME}$"})]
        base = KINDS[self.section].base
        text = f"A class of your own, derived from `{base.__module__}.{base.__name__}`."
        settings = {"extra": "allow"}
        own = create_model("OwnClass", __base__=self.shared, __cls_kwargs__=settings, __doc__=text, kind=(name, ...))
        members.append(Annotated[own, Tag(_OWN_CLASS)])
        union = handler.generate_schema(Annotated[Union[tuple(members)], Discriminator(_tag)])  # noqa: UP007
        return core_schema.with_info_after_validator_function(self._made, union)

    def options(self, cls: type, kind: str | None = None) -> type[BaseModel]:
        """Return the model of the section for one class."""
        return options_model(cls, KINDS[self.section].supplied, kind, self.shared)

    def _made(self, read: BaseModel, info: ValidationInfo) -> Any:
        kind: str = read.kind  # type: ignore[attr-defined]  # every member of the union has one
        if read.__pydantic_extra__ is not None:
            cls = self._own_class(kind, trusts_code(info))
            model = self.options(cls)
            (info.context or {})["models"][kind] = model
            raw = read.model_dump(mode="json", exclude_unset=True, exclude={"kind"})
            read = model.model_validate_json(json.dumps(raw), strict=True)
        else:
            cls = KINDS[self.section].classes[kind]
        values = {name: getattr(read, name) for name in type(read).model_fields if name != "kind"}
        shared = {name: values.pop(name) for name in self.shared.model_fields}
        try:
            return self.make(kind, values, cls, **shared)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def _own_class(self, name: str, trust_code: bool) -> type[Any]:
        kinds = KINDS[self.section]
        base = kinds.base
        found = find_object(name, trust_code, "kind")
        is_class = isinstance(found, type) and issubclass(found, base)
        if not is_class and not (kinds.may_be_function and inspect.isfunction(found)):
            what = "a function or a class" if kinds.may_be_function else "a class"
            raise ValueError(f"kind: {name!r} must be {what} derived from {base.__module__}.{base.__name__}")
        try:
            self.options(found)
        except (TypeError, ValueError, NameError) as error:  # a class that no file can describe
            raise ValueError(f"kind: {error}") from error
        own: type[Any] = found
        return own


def _tag(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    if not isinstance(kind, str):
        return None
    return _OWN_CLASS if ":" in kind else kind


def trusts_code(info: ValidationInfo) -> bool:
    """Return whether what is being read may name Python code."""
    return bool(info.context and info.context["trust_code"])


@functools.cache
def options_model(
    cls: type, supplied: frozenset[str] = frozenset(), kind: str | None = None, base: type[Section] = Section
) -> type[BaseModel]:
    """Return the model of what a configuration may say about `cls`: its constructor's parameters.

    A parameter whose type YAML cannot write (a clock, say) or whose name starts with an underscore is no option.

    Args:
        cls: A class, often a dataclass.
        supplied: Parameters that the program gives.
        kind: Of a built-in class, where the section names it.
        base: With further keys of the section.

    Raises:
        TypeError: If a parameter without a default is no option and is not supplied either.
    """
    fields: dict[str, Any] = {"kind": (Literal[kind], ...)} if kind else {}
    for parameter in inspect.signature(cls, eval_str=True).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in supplied:
            continue
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        required = parameter.default is parameter.empty
        if not parameter.name.startswith("_") and _is_writable(annotation):
            fields[parameter.name] = (annotation, ... if required else _default(cls, parameter))
        elif required:
            raise TypeError(f"{cls.__name__}.{parameter.name}: a configuration cannot give {annotation!r}")
    texts = (inspect.cleandoc(ancestor.__doc__) for ancestor in getattr(cls, "__mro__", (cls,)) if ancestor.__doc__)
    model: type[BaseModel] = create_model(cls.__name__, __base__=base, __doc__="\n\n".join(texts), **fields)
    return model


def _default(cls: type, parameter: inspect.Parameter) -> object:
    """Return the default value; a dataclass's factory is called (its values are immutable by our rules)."""
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
    return parameter.default


def _is_writable(annotation: Any) -> bool:
    """Return whether YAML can write values of a type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _is_writable(arguments[0])
    if origin is Literal or annotation in (Any, bool, int, float, str, Path, types.NoneType):
        return True
    if origin in (Union, types.UnionType, tuple, list, dict, Sequence, Mapping):
        return all(_is_writable(argument) for argument in arguments if argument is not ...)
    return isinstance(annotation, type) and (issubclass(annotation, Enum) or dataclasses.is_dataclass(annotation))
