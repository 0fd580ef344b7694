"""The JSON schema of a configuration file, for editors: completion, descriptions and faults while one types."""

import inspect
import re
import typing
from typing import Any

from annotated_types import Unit
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from nas.config.model import RunConfig

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def configuration_schema() -> dict[str, Any]:
    """Return the schema; `nas schema` prints it."""
    schema = RunConfig.model_json_schema(schema_generator=_Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "Configuration of a search"}


class _Described(GenerateJsonSchema):
    """Takes descriptions from docstrings (first paragraph, `Args`, `Attributes`), and units from types."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Describe a section, or the options of a class."""
        return _described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Describe a section that is a value of its own."""
        return _described(super().dataclass_schema(schema), schema["cls"])


def _described(schema: JsonSchemaValue, cls: type) -> JsonSchemaValue:
    documentation = "\n\n".join(inspect.cleandoc(base.__doc__) for base in cls.__mro__ if base.__doc__)
    types = typing.get_type_hints(cls, include_extras=True)
    texts = dict(reversed(_ENTRY.findall(documentation)))  # a class's own text before that of what it derives from
    schema["description"] = _one_line(documentation.partition("\n\n")[0])
    for name, field in schema.get("properties", {}).items():
        field.pop("title", None)
        if name in texts:
            field["description"] = _one_line(texts[name])
        if (unit := _unit(types.get(name))) is not None:
            field["unit"] = unit
    return schema


def _unit(annotation: Any) -> str | None:
    """Return the unit in a type, or in one of its members."""
    units = (item.unit for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Unit))
    return next(units, None) or next(filter(None, map(_unit, typing.get_args(annotation))), None)


def _one_line(text: str) -> str:
    """Return a text for readers of YAML, in which Python's `None` is `null`."""
    return " ".join(text.split()).replace("`None`", "`null`")
