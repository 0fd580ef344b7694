"""The page that lists every section, kind and option of a configuration, made from its JSON schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nas.config.faults import Formatter
from nas.config.schema import configuration_schema

_INTRODUCTION = """# Configuration reference

Every section, kind and option of a configuration file, made from the classes that read it.
[Writing a configuration](../configuration.md) shows how they play together. `null` stands for "not given".
"""
_LONGEST_DEFAULT = 100  # characters; of a longer one the description tells
_HEADER = ["| option | must be | default | description |", "|---|---|---|---|"]

Schema = Mapping[str, Any]


class ReferencePage:
    """Writes the page of one schema.

    Args:
        schema: Of a configuration file.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._formatter = Formatter({}, schema)

    def text(self) -> str:
        """Return the page as Markdown."""
        sections = self._schema["properties"]
        parts = [_INTRODUCTION, *self._table((), self._schema)]
        for name, section in sections.items():
            parts += self._nested((name,), section)
        return "\n".join(parts) + "\n"

    def _nested(self, path: tuple[str, ...], schema: Schema) -> Iterator[str]:
        """Yield the part of the page on what stands at `path`, if that holds options of its own."""
        inner = self._inner(schema)
        if inner is None:
            return
        yield f"\n{'#' * min(len(path) + 1, 4)} `{'.'.join(path)}` {{#{_anchor(path)}}}\n"
        if "oneOf" in inner:
            yield from self._kinds(path, schema, inner)
            return
        yield f"{inner['description']}\n"
        yield from self._table(path, inner)
        for name, option in inner["properties"].items():
            yield from self._nested((*path, name), option)

    def _kinds(self, path: tuple[str, ...], section: Schema, union: Schema) -> Iterator[str]:
        *members, own = (self._resolved(member) for member in union["oneOf"])
        shared = {name: option for name, option in own["properties"].items() if name != "kind"}
        names = [member["properties"]["kind"]["const"] for member in members]
        links = ", ".join(f"[`{name}`](#{_anchor((*path, name))})" for name in names)
        yield f"{section['description']} Its `kind` is {links}, or `package.module:ClassName`: {_lower(own)}\n"
        if shared:
            yield "Of every kind:\n"
            yield from self._table(path, {"properties": shared})
        for name, member in zip(names, members, strict=True):
            options = {key: option for key, option in member["properties"].items() if key not in {"kind", *shared}}
            yield f"\n### `{path[0]}: {{kind: {name}}}` {{#{_anchor((*path, name))}}}\n"
            yield f"{member['description']}\n"
            yield from self._table((*path, name), {**member, "properties": options})
            for key, option in options.items():
                yield from self._nested((*path, name, key), option)
        for name, option in shared.items():
            yield from self._nested((*path, name), option)

    def _table(self, path: tuple[str, ...], schema: Schema) -> Iterator[str]:
        if not schema["properties"]:
            return
        yield from _HEADER
        for name, option in schema["properties"].items():
            words, inner = self._formatter.described(option), self._inner(option)
            if inner is not None:
                words = words.replace("a value", "a mapping with a `kind`")
                words = f"[{words}](#{_anchor((*path, name))})"
            words += f", in {option['unit']}" if "unit" in option else ""
            default = "(required)" if name in schema.get("required", ()) else _default(option)
            cells = (f"`{name}`", words, default, option.get("description", ""))
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""

    def _inner(self, schema: Schema) -> Schema | None:
        """Return the schema of what has options of its own: a section, its kinds, or the items of a collection."""
        schema = self._resolved(schema)
        if "oneOf" in schema or "properties" in schema:
            return schema
        parts = [*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")]
        return next((found for part in parts if isinstance(part, dict) and (found := self._inner(part))), None)

    def _resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref", "").rpartition("/")[2]
        return {**schema, **self._schema["$defs"][reference]} if reference else schema


def _anchor(path: tuple[str, ...]) -> str:
    return "-".join(path)


def _lower(schema: Schema) -> str:
    text: str = schema["description"]
    return text[0].lower() + text[1:]


def _default(option: Schema) -> str:
    """Return an option's default as YAML writes it; nothing for one that the description tells."""
    if "default" not in option:
        return ""
    default = option["default"]
    if isinstance(default, dict):
        default = {key: value for key, value in default.items() if value is not None}
    text = default if isinstance(default, str) and default else json.dumps(default)
    return f"`{text}`" if len(text) <= _LONGEST_DEFAULT else ""


def reference_page() -> str:
    """Return the page of the configuration that this checkout reads."""
    return ReferencePage(configuration_schema()).text()
