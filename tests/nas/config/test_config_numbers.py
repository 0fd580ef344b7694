"""Every number of a configuration: a wild value is taken, or refused by name before anything is made."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from nas.config import load_config
from nas.config.schema import configuration_schema
from nas.errors import ConfigurationError

WILD = (-1, 10**22, 1e308, 10**400)
SCHEMA = configuration_schema()
NEEDED = {
    "image_folder": {"root": "none", "image_size": 32},
    "image_mask_folder": {"root": "none", "image_size": 32, "class_names": ["a", "b"]},
    "parquet": {"root": "none", "image_size": 32, "class_names": ["a", "b"]},
    "onnx": {"path": "none.onnx"},
}
VALUES_OF_METRICS = {".constraints[].max", ".constraints[].min", ".reference_point.*", ".metrics.*.chance_level"}
UNBOUNDED = VALUES_OF_METRICS | {".execution<ray>.resources_per_candidate.*"}  # a cluster says what it has


def numbers(schema: Any, path: str = "", seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the place of each number, such as `.devices.*<fake>.base_ms` or `.teacher<onnx>.mean[]`."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        if name not in seen:
            yield from numbers(SCHEMA["$defs"][name], path, seen | {name})
        return
    if schema.get("type") in ("integer", "number"):
        yield path
    properties = schema.get("properties", {})
    kind = properties.get("kind", {}).get("const")
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from numbers(part, path, seen)
    for key, part in properties.items():
        yield from numbers(part, f"{path}<{kind}>.{key}" if kind else f"{path}.{key}", seen)
    for key, ending in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(schema.get(key), Mapping):
            yield from numbers(schema[key], path + ending, seen)


PATHS = sorted(set(numbers(SCHEMA)))


def configuration(path: str, value: Any) -> dict[str, Any]:
    """Return a configuration that holds `value` at `path`, and little else."""
    whole: dict[str, Any] = {
        "name": "x",
        "data": {"kind": "synthetic_faces"},
        "search_space": {"kind": "segmentation_cell"},
        "training": {},
        "objectives": [{"metric": "mean_iou"}],
        "controller": {"kind": "random"},
    }
    section = whole
    *outer, (last, _, lists) = re.findall(r"\.([\w*]+)(?:<(\w+)>)?((?:\[\])*)", path)
    for name, given, is_list in outer:
        kind = given or ("unet" if name == "teacher" else "")
        inner = {"kind": kind, **NEEDED.get(kind, {})} if kind else section.get(name, {})
        section[name] = [inner] if is_list else inner
        section = inner
    section["mean_iou" if last == "*" else last] = [value] if lists else value
    return whole


def test_there_are_many_numbers():
    assert len(PATHS) > 150
    assert {".seed", ".training.stages[].epochs", ".devices.*<fake>.base_ms", ".teacher<unet>.width"} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_a_wild_number_is_taken_or_refused(path):
    option = re.findall(r"\w+", path)[-1]
    messages = []
    for value in WILD:
        try:
            load_config(configuration(path, value))
        except ConfigurationError as error:
            messages.append(str(error))
    is_refused = [option in message and "Overflow" not in message for message in messages]
    assert path in UNBOUNDED or sum(is_refused) >= 3, messages


def test_a_bound_that_is_far_is_told_to_those_who_exceed_it():
    def fault(value):
        with pytest.raises(ConfigurationError) as caught:
            load_config(configuration(".training.epochs", value))
        return str(caught.value).partition("training.epochs ")[2]

    assert fault(0) == "must be an integer of at least 1, got 0."
    assert fault(10**22) == f"must be an integer of 1 .. 1000000, got {10**22}."
