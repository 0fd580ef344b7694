"""What the readers of a configuration's sections share."""

import difflib
from collections.abc import Mapping
from typing import Any

from nas.config.kinds import find_class
from nas.config.options import construct, must_be, nearest, options_model, sentence, validate
from nas.config.yaml_source import Fault, KeyPath
from nas.registry import REFERENCE_TASKS, Kinds


class SectionReader:
    """Reads sections, and gathers their faults.

    Args:
        raw: The whole configuration as plain values.
        given: The sections that the user wrote, faulty ones included.
        trust_code: Whether Python code that it names may be imported.
        kinds: By section, what its `kind` may be.

    Attributes:
        faults: Those found so far.
    """

    def __init__(
        self, raw: Mapping[str, Any], given: frozenset[str], trust_code: bool, kinds: Mapping[str, Kinds]
    ) -> None:
        self.faults: list[Fault] = []
        self._raw = raw
        self._given = given
        self._trust_code = trust_code
        self._kinds = kinds

    def _fault(self, path: KeyPath, text: str) -> None:
        self.faults.append(Fault(path, text))

    def _mapping(self, path: KeyPath, raw: Any, example: str = "") -> Mapping[str, Any] | None:
        if raw is None or isinstance(raw, Mapping):
            return raw
        self.faults.append(must_be(path, f"a mapping{example}", raw))
        return None

    def _kind_and_options(
        self, path: KeyPath, raw: Mapping[str, Any], kinds: Kinds, own: Mapping[str, Any] | None = None
    ) -> tuple[type | None, dict[str, Any] | None]:
        """Return the class that `raw` names and its options; `own` are keys that are read elsewhere."""
        own = own or {}
        kind = self._kind(path, raw, kinds, own)
        if kind is None:
            return None, None
        cls, faults = find_class(kinds, kind, (*path, "kind"), self._trust_code)
        self.faults += faults
        if cls is None:
            return None, None
        try:
            model = options_model(cls, kinds.supplied)
        except (TypeError, ValueError, NameError) as error:  # a user's class that no file can describe
            self._fault((*path, "kind"), sentence((*path, "kind"), f"{error}."))
            return cls, None
        rest = {key: value for key, value in raw.items() if key != "kind" and key not in own}
        options, faults = validate(model, rest, path, also_known=("kind", *own))
        self.faults += faults
        return cls, options

    def _kind(self, path: KeyPath, raw: Mapping[str, Any], kinds: Kinds, own: Mapping[str, Any]) -> str | None:
        if "kind" not in raw:
            others = [key for key in raw if key not in own]
            for key in difflib.get_close_matches("kind", others, n=1):
                self._fault((*path, key), sentence(path, f"unknown key {key!r}. Did you mean 'kind'?"))
                return None
            self._fault((*path, "kind"), sentence(path, f"missing key 'kind'.{nearest('', kinds.classes)}"))
        elif not isinstance(raw["kind"], str):
            self.faults.append(must_be((*path, "kind"), "text", raw["kind"]))
        else:
            return str(raw["kind"])
        return None

    def _value(self, section: str, cls: type, raw: Mapping[str, Any], own: tuple[str, ...]) -> Any:
        """Return the value of class `cls` that the keys of `raw` but `own` give."""
        rest = {key: value for key, value in raw.items() if key not in own}
        options, faults = validate(options_model(cls), rest, (section,), also_known=own)
        self.faults += faults
        if options is None:
            return None
        value, faults = construct(lambda: cls(**options), options, (section,))
        self.faults += faults
        return value

    def _needs_data(self, section: str) -> None:
        if "data" not in self._given:
            self._fault((section,), f"{section} needs a data section.")

    def _check_reference(self, path: KeyPath, kind: str, task_kind: str | None) -> None:
        does = REFERENCE_TASKS.get(kind)
        if does is not None and task_kind is not None and does != task_kind:
            fitting = [name for name, task in REFERENCE_TASKS.items() if task == task_kind]
            self._fault(path, sentence(path, f"{kind!r} does {does}; for {task_kind} take {', '.join(fitting)}."))
