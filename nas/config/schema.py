"""The JSON schema of a configuration file, for editors: completion, descriptions and faults while one types."""

import inspect
import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from nas.config.model import RunConfig

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def configuration_schema() -> dict[str, Any]:
    """Return the schema; `nas schema` prints it."""
    schema = RunConfig.model_json_schema(schema_generator=_Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "Configuration of a search"}


class _Described(GenerateJsonSchema):
    """Takes descriptions from the docstrings of the classes: their first paragraph, `Args` and `Attributes`."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Describe a section, or the options of a class."""
        return _described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Describe a section that is a value of its own."""
        return _described(super().dataclass_schema(schema), schema["cls"])


def _described(schema: JsonSchemaValue, cls: type) -> JsonSchemaValue:
    documentation = "\n\n".join(inspect.cleandoc(base.__doc__) for base in cls.__mro__ if base.__doc__)
    texts = dict(reversed(_ENTRY.findall(documentation)))  # a class's own text before that of what it derives from
    schema["description"] = _one_line(documentation.partition("\n\n")[0])
    for name, field in schema.get("properties", {}).items():
        field.pop("title", None)
        if name in texts:
            field["description"] = _one_line(texts[name])
    return schema


def _one_line(text: str) -> str:
    return " ".join(text.split())
