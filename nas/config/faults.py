"""The one formatter: pydantic's errors as faults with their key, what must hold, what came, and the nearest name."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from nas.config.yaml_source import Fault, KeyPath, key_text
from nas.values.bounds import is_far

_MAX_LISTED = 12
_WORDS = {"boolean": "true or false", "null": "null", "object": "a mapping", "string": "text", "path": "a path"}
_NOUNS = {"integer": "integer", "number": "finite number", "string": "text", "path": "path", "object": "mapping"}
_NOUNS |= {"array": "list"}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}

JsonSchema = Mapping[str, Any]


def nearest(name: object, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"`, or the known names if none is near; starts with a blank."""
    names = sorted(known)
    if matches := difflib.get_close_matches(str(name), names, n=1):
        return f" Did you mean {matches[0]!r}?"
    if not names:
        return " There are none."
    return f" Known: {', '.join(names[:_MAX_LISTED])}{', ...' if len(names) > _MAX_LISTED else ''}."


def shown(value: object) -> str:
    """Return `value` as a fault shows it: short, and in YAML's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "a mapping" if isinstance(value, Mapping) else reprlib.repr(value)


def sentence(path: KeyPath, message: str) -> str:
    """Return `message` about the value at `path`, with the key in front unless it is the whole file."""
    return f"{key_text(path)}: {message}" if path else message


def must_be(path: KeyPath, what: str, value: object, hint: str = "") -> Fault:
    """Return the fault that the value at `path` is not what it must be."""
    return Fault(path, f"{key_text(path)} must be {what}, got {shown(value)}.{hint}")


def blamed(path: KeyPath, message: str, options: Iterable[str]) -> Fault:
    """Return a `ValueError`'s message as a fault: of the option that it starts with, else of the section at `path`."""
    first, text = re.match(r"\w+", message), message.strip() or "the options were refused"
    text = text if text[-1] in ".?!" else f"{text}."
    if first and first[0] in options:
        return Fault((*path, first[0]), f"{key_text(path)}.{text}".removeprefix("."))
    is_phrase = path and text.startswith(("must be ", "names Python code"))
    return Fault(path, f"{key_text(path)} {text}" if is_phrase else sentence(path, text))


class Formatter:
    """Turns the errors of one reading into faults.

    Args:
        data: What was read, as plain values.
        schema: Its JSON schema, with the bounds and types of each place.
        own_schemas: Of users' own classes, by kind.
    """

    def __init__(self, data: Any, schema: JsonSchema, own_schemas: Mapping[str, JsonSchema] | None = None) -> None:
        self._data = data
        self._own_schemas = own_schemas or {}
        parts = (schema, *self._own_schemas.values())
        self._root = {**schema, "$defs": {name: part for s in parts for name, part in s.get("$defs", {}).items()}}

    def faults(self, error: ValidationError) -> list[Fault]:
        """Return the faults; a missing key that a misspelled one means is not named again."""
        found: dict[Fault, None] = {}
        missing: dict[KeyPath, Fault] = {}
        meant: set[KeyPath] = set()
        for item in error.errors(include_url=False):
            at, value, schema, siblings = self._place(item["loc"])
            kind, inside = item["type"], self._member(schema, value)
            if kind in ("extra_forbidden", "unexpected_keyword_argument"):
                hint = nearest(at[-1], siblings)
                meant |= {(*at[:-1], name) for name in siblings if hint == f" Did you mean {name!r}?"}
                fault = Fault(at, sentence(at[:-1], f"unknown key {at[-1]!r}.{hint}"))
            elif kind == "missing" and at and at[-1] == item["loc"][-1]:
                missing[at] = Fault(at, sentence(at[:-1], f"missing key {at[-1]!r}."))
                continue
            elif kind.startswith("union_tag"):
                fault = self._kind_fault(at, value, inside)
            elif kind == "value_error":
                fault = blamed(at, str(item["ctx"]["error"]), ("kind", *inside.get("properties", ())))
            else:
                parts = (self._resolved(part) for part in (schema, *schema.get("anyOf", ())))
                choices = [str(choice) for part in parts for choice in part.get("enum", ())]
                hint = nearest(value, choices) if choices and isinstance(value, str) else ""
                fault = must_be(at, self.described(schema, value), value, hint if "Did you mean" in hint else "")
            found[fault] = None
        return [*found, *(fault for at, fault in missing.items() if at not in meant)]

    def described(self, schema: JsonSchema, value: Any = None) -> str:
        """Return what `value` must be, in words that follow "must be"."""
        schema = self._resolved(schema)
        if "must_be" in schema:
            return str(schema["must_be"])
        if "anyOf" in schema:
            is_optional = schema.get("default", "") is None
            parts = [part for part in schema["anyOf"] if not (is_optional and part == {"type": "null"})]
            return " or ".join(self.described(part, value) for part in parts)
        if "enum" in schema or "const" in schema:
            choices = [shown(choice) for choice in schema.get("enum", [schema.get("const")])]
            return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
        if schema.get("type") == "array":
            items = self._resolved((*schema.get("prefixItems", ()), schema.get("items", {}))[0])
            least, noun = schema.get("minItems"), _NOUNS.get(_type(items), "item")
            count = "" if least is None else f"{'' if least == schema.get('maxItems') else 'at least '}{least} "
            return f"a list of {count}{noun}{'' if least == 1 else 's'}"
        return _WORDS.get(_type(schema)) or _number(schema, value)

    def _kind_fault(self, path: KeyPath, value: Any, schema: JsonSchema) -> Fault:
        members = map(self._resolved, schema["oneOf"])
        kinds = [name for member in members if (name := member["properties"]["kind"].get("const"))]
        if not isinstance(value, Mapping):
            return must_be(path, f"a mapping such as {{kind: {kinds[0]}}}", value)
        kind, at = value.get("kind"), (*path, "kind")
        if "kind" not in value:
            for key in difflib.get_close_matches("kind", map(str, value), n=1):
                return Fault((*path, key), sentence(path, f"unknown key {key!r}. Did you mean 'kind'?"))
            return Fault(at, sentence(path, f"missing key 'kind'.{nearest('', kinds)}"))
        if not isinstance(kind, str):
            return must_be(at, "text", kind)
        return Fault(at, sentence(at, f"unknown kind {kind!r}.{nearest(kind, kinds)}"))

    def _place(self, location: KeyPath) -> tuple[KeyPath, Any, JsonSchema, Iterable[str]]:
        """Return the path of an error, the value there, its schema, and the keys known beside it.

        A location also names members of unions: a kind is left out; of any other union the whole value is at fault.
        """
        path: KeyPath = ()
        value, schema, siblings = self._data, self._root, ()
        for key in location:
            inside = self._member(schema, value)
            properties, items = inside.get("properties", {}), inside.get("prefixItems", ())
            if isinstance(value, Mapping) and (key in value or key in properties):
                schema = properties.get(key, inside.get("additionalProperties") or {})
                value, siblings = value.get(str(key)), properties
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                schema = items[key] if key < len(items) else inside.get("items", {})
                value = value[key]
            elif isinstance(value, Mapping) and "kind" in value:
                continue
            else:
                break
            path = (*path, key)
        return path, value, schema, siblings

    def _resolved(self, schema: JsonSchema) -> JsonSchema:
        reference = schema.get("$ref", "").rpartition("/")[2]
        return {**self._root["$defs"][reference], **schema} if reference else schema

    def _member(self, schema: JsonSchema, value: Any) -> JsonSchema:
        """Return the member of a union that `value` belongs to; the schema itself if it is no union, or none fits."""
        schema, kind = self._resolved(schema), value.get("kind") if isinstance(value, Mapping) else None
        if isinstance(kind, str) and kind in self._own_schemas:
            return self._own_schemas[kind]
        for member in schema.get("oneOf", schema.get("anyOf", ())):
            found = self._member(member, value)
            name = found.get("properties", {}).get("kind")
            is_kind = name is None or (isinstance(kind, str) and name.get("const", kind if ":" in kind else "") == kind)
            fitting = {"object": isinstance(value, Mapping) and is_kind, "array": isinstance(value, list)}
            if "oneOf" in found or fitting.get(found.get("type", "")):
                return found
        return schema


def _type(schema: JsonSchema) -> str:
    return "path" if schema.get("format") == "path" else str(schema.get("type", ""))


def _number(schema: JsonSchema, value: Any) -> str:
    """Return what the number `value` must be: `an even integer of at least 4`."""
    if "maximum" in schema and is_far(schema["maximum"], value):
        schema = {key: bound for key, bound in schema.items() if key != "maximum"}
    noun, step = _NOUNS.get(_type(schema), "value"), schema.get("multipleOf")
    bounds = [f"{words} {schema[key]:.15g}" for key, words in _BOUNDS.items() if key in schema]
    if "minimum" in schema and "maximum" in schema:
        bounds = [f"{schema['minimum']:.15g} .. {schema['maximum']:.15g}"]
    if "maximum" in schema or "exclusiveMaximum" in schema:
        noun = noun.removeprefix("finite ")  # the bound implies it
    if step is not None:
        noun = f"even {noun}" if step == 2 else f"multiple of {step:g}"
    if bounds == ["more than 0"]:
        noun, bounds = f"positive {noun}", []
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}{' of ' if bounds else ''}{' and '.join(bounds)}"
