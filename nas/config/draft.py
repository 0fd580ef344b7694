"""A configuration while it is read: section by section, so that all faults are found at once."""

import difflib
import functools
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from nas.config.faults import Formatter, blamed, nearest, sentence
from nas.config.kinds import Section
from nas.config.model import RunConfig
from nas.config.yaml_source import Fault, KeyPath
from nas.values.recipes import TrainingRecipe

_FIELDS = RunConfig.model_fields
_REQUIRED = tuple(name for name, field in _FIELDS.items() if field.is_required())
_READ_ITEM_BY_ITEM = ("devices", "objectives", "constraints")
_RECIPE_KEYS = [field.name for field in fields(TrainingRecipe)]


@functools.cache
def _section_model(name: str) -> type[BaseModel]:
    """Return the model of a file that holds one section alone."""
    field: dict[str, Any] = {name: (typing.get_type_hints(RunConfig, include_extras=True)[name], ...)}
    return create_model(name, __base__=Section, **field)


@functools.cache
def _section_schema(name: str) -> dict[str, Any]:
    return _section_model(name).model_json_schema()


class Draft:
    """Reads one configuration, once, and collects its faults.

    Args:
        data: The file as plain values.
        trust_code: Whether Python code that it names may be imported.

    Attributes:
        raw: The file as plain values, with what stages take over from their section.
        given: The sections that the user wrote, faulty and misspelled ones included.
        config: The sections without fault. In place of a faulty one stands its default or `None`, in place of a faulty
            objective or constraint `None`; a faulty device is left out.
        faults: Those found so far.
    """

    def __init__(self, data: Mapping[str, Any], *, trust_code: bool = False) -> None:
        self.faults: list[Fault] = []
        self._data = data
        self._context: dict[str, Any] = {"trust_code": trust_code, "models": {}}
        self.raw = _with_complete_stages(data)
        unknown = [key for key in data if key not in _FIELDS]
        # One slip is one fault: what a misspelled section means counts as given.
        misspelled = {name for key in unknown for name in difflib.get_close_matches(key, _FIELDS, n=1)}
        written = frozenset(name for name, raw in self.raw.items() if name in _FIELDS and _is_given(name, raw))
        self.given = written | misspelled
        for key in unknown:
            self.report((key,), f"unknown key {key!r}.{nearest(key, _FIELDS)}", ())
        for name in _REQUIRED:
            if name not in self.given:
                self.report((name,), f"missing key {name!r}.", ())
        read = {name: self.section(name, self.raw[name]) for name in _FIELDS if name in written}
        sound = {name: section for name, section in read.items() if section is not None}
        self.config = RunConfig.model_construct(**(dict.fromkeys(_REQUIRED) | sound))

    def section(self, name: str, raw: Any) -> Any:
        """Return a section as `raw` gives it. Faults are noted: `None` then, or the items that have none."""
        try:
            return self._validated(name, raw)
        except ValidationError as error:
            own = {kind: model.model_json_schema() for kind, model in self._context["models"].items()}
            found = Formatter({name: raw}, _section_schema(name), own).faults(error)
        self.faults += [fault for fault in found if self._is_written(fault)]
        if name not in _READ_ITEM_BY_ITEM or any(fault.path == (name,) for fault in found):
            return None
        faulty = {fault.path[1] for fault in found}
        if isinstance(raw, Mapping):
            return self._validated(name, {key: item for key, item in raw.items() if key not in faulty})
        sound = iter(self._validated(name, [item for index, item in enumerate(raw) if index not in faulty]))
        return tuple(None if index in faulty else next(sound) for index in range(len(raw)))

    def report(self, path: KeyPath, text: str, at: KeyPath | None = None) -> None:
        """Note a fault: of the value at `path`, unless its text is about the one at `at`."""
        self.faults.append(Fault(path, sentence(path if at is None else at, text)))

    def attempt(self, check: Callable[[], object], section: str, options: Iterable[str]) -> Any:
        """Return what `check` returns; a `ValueError` is a fault of the option that its message starts with."""
        try:
            return check()
        except ValueError as error:
            self.faults.append(blamed((section,), str(error), options))
        return None

    def update(self, **sections: Any) -> None:
        """Replace sections of `config`."""
        self.config = self.config.model_copy(update=sections)

    def _validated(self, name: str, raw: Any) -> Any:
        text = json.dumps({name: raw}, default=str)
        return getattr(_section_model(name).model_validate_json(text, context=self._context), name)

    def _is_written(self, fault: Fault) -> bool:
        """Return whether the file itself holds what is at fault: a value that stages take over is named once."""
        match fault.path:
            case ("training", "stages", int(number), str(key)) if key in _RECIPE_KEYS:
                return key in self._data["training"]["stages"][number]
        return True


def _is_given(name: str, raw: Any) -> bool:
    """Return whether a section is to be read; an empty one is left out, unless it is required or a single value."""
    return raw is not None or name in _REQUIRED or isinstance(_FIELDS[name].default, str | int)


def _with_complete_stages(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the file with what the stages of a training take over from its section."""
    training = data.get("training")
    if not isinstance(training, Mapping):
        return dict(data)
    training = {key: value for key, value in training.items() if value is not None or key in _RECIPE_KEYS}
    if isinstance(training.get("stages"), list):
        shared = {key: training[key] for key in _RECIPE_KEYS if key in training and key != "epochs"}
        stages = [shared | dict(stage) if isinstance(stage, Mapping) else stage for stage in training["stages"]]
        training["stages"] = stages
    return {**data, "training": training}
