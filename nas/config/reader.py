"""Reads a configuration section by section, so that all faults are found at once. Only `load_config` needs it."""

import difflib
import functools
import json
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from nas.config.checks import CrossChecks
from nas.config.faults import Formatter, nearest
from nas.config.kinds import Section
from nas.config.model import RunConfig
from nas.config.yaml_source import Fault, YamlSource
from nas.values.recipes import TrainingRecipe

_REQUIRED = tuple(name for name, field in RunConfig.model_fields.items() if field.is_required())
_RECIPE_KEYS = [field.name for field in fields(TrainingRecipe)]


@functools.cache
def _section_model(name: str) -> type[BaseModel]:
    """Return the model of a file that holds one section alone."""
    annotation = typing.get_type_hints(RunConfig, include_extras=True)[name]
    field: dict[str, Any] = {name: (annotation, ...)}
    return create_model(name, __base__=Section, **field)


@functools.cache
def _section_schema(name: str) -> dict[str, Any]:
    return _section_model(name).model_json_schema()


class ConfigReader:
    """Reads one configuration, once.

    Args:
        source: What the user wrote.
        trust_code: Whether Python code that it names may be imported.

    Attributes:
        faults: Those found so far.
    """

    def __init__(self, source: YamlSource, *, trust_code: bool = False) -> None:
        self._source = source
        self._raw = _inherited(source.data)
        self._context: dict[str, Any] = {"trust_code": trust_code, "models": {}}
        self.faults: list[Fault] = []
        self._read: dict[str, Any] = {}  # sections without fault

    def read(self) -> RunConfig:
        """Return the configuration.

        Raises:
            ConfigurationError: Naming all faults, by line.
        """
        given = self._given()
        for name in (name for name in RunConfig.model_fields if name in given):
            if (section := self.section(name, self._raw[name])) is not None:
                self._read[name] = section
        # Where a section is faulty, its default is checked, or None; nobody gets to see that.
        draft = RunConfig.model_construct(**(dict.fromkeys(_REQUIRED) | self._read))
        checks = CrossChecks(draft, self._raw, given | self._misspelled(), self.section, self.items)
        checked = checks.checked()
        self.faults += checks.faults
        if self.faults:
            raise self._source.error(self.faults)
        return checked

    def section(self, name: str, raw: Any) -> Any:
        """Return a section as `raw` gives it; `None` if there are faults, which are noted."""
        try:
            return getattr(self._validated(name, raw), name)
        except ValidationError as error:
            own = {kind: model.model_json_schema() for kind, model in self._context["models"].items()}
            formatter = Formatter({name: raw}, _section_schema(name), own)
            self.faults += [fault for fault in formatter.faults(error) if self._is_written(fault)]
        return None

    def items(self, name: str) -> dict[Any, Any]:
        """Return the items of a section that are without fault, by name or index."""
        raw, read = self._raw.get(name), self._read.get(name)
        if not raw or not isinstance(raw, list | Mapping):
            return {}
        keys: list[Any] = list(range(len(raw)) if isinstance(raw, list) else raw)
        if read is None and not any(fault.path == (name,) for fault in self.faults):
            faulty = {fault.path[1] for fault in self.faults if fault.path[0] == name}
            keys = [key for key in keys if key not in faulty]
            sound = [raw[key] for key in keys] if isinstance(raw, list) else {key: raw[key] for key in keys}
            read = getattr(self._validated(name, sound), name)
        items = read.values() if isinstance(read, Mapping) else read or ()
        return dict(zip(keys, items, strict=False))

    def _validated(self, name: str, raw: Any) -> BaseModel:
        text = json.dumps({name: raw}, default=str)
        return _section_model(name).model_validate_json(text, context=self._context)

    def _given(self) -> frozenset[str]:
        """Return the sections to read; an empty one counts as left out, unless it is required or a single value."""
        for key in self._raw.keys() - RunConfig.model_fields.keys():
            self.faults.append(Fault((key,), f"unknown key {key!r}.{nearest(key, RunConfig.model_fields)}"))
        misspelled = self._misspelled()
        for name in _REQUIRED:
            if name not in self._raw and name not in misspelled:
                self.faults.append(Fault((name,), f"missing key {name!r}."))
        fields = RunConfig.model_fields
        return frozenset(
            name
            for name, raw in self._raw.items()
            if name in fields and (raw is not None or name in _REQUIRED or isinstance(fields[name].default, str | int))
        )

    def _misspelled(self) -> frozenset[str]:
        """Return the sections that misspelled ones mean, so that one slip is one fault."""
        unknown = self._raw.keys() - RunConfig.model_fields.keys()
        return frozenset(
            name for key in unknown for name in difflib.get_close_matches(key, RunConfig.model_fields, n=1)
        )

    def _is_written(self, fault: Fault) -> bool:
        """Return whether the file itself holds what is at fault: a value that stages take over is named once."""
        match fault.path:
            case ("training", "stages", int(number), str(key)) if key in _RECIPE_KEYS:
                return key in self._source.data["training"]["stages"][number]
        return True


def _inherited(data: dict[str, Any]) -> dict[str, Any]:
    """Return the file with what the stages of a training take over from its section."""
    training = data.get("training")
    if isinstance(training, Mapping):
        training = {key: value for key, value in training.items() if value is not None or key in _RECIPE_KEYS}
        if isinstance(training.get("stages"), list):
            shared = {key: training[key] for key in _RECIPE_KEYS if key in training and key != "epochs"}
            stages = [shared | dict(stage) if isinstance(stage, Mapping) else stage for stage in training["stages"]]
            training["stages"] = stages
        data = data | {"training": training}
    return data
