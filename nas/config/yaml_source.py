"""YAML read as data; the line of each key is found again when a fault names it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nas.config.yaml_limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES, BoundedLoader, n_values
from nas.config.yaml_surprises import lookalike, lookalikes_in_lines, scalar_surprise
from nas.errors import ConfigurationError, InputError
from nas.files import read_foreign

_FREE_PREFIX = "x-"  # keys at the top that start so are the user's own: a place to define anchors

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of mappings and indices of lists, from the outside in."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        path: The value at fault; gives the line.
        text: The whole sentence, with the key in words.
    """

    path: KeyPath
    text: str


def key_text(path: KeyPath) -> str:
    """Return `path` as people write it: `objectives[1].metric`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


@dataclass(frozen=True)
class YamlSource:
    """A configuration as it was written.

    Attributes:
        name: What faults call it: the file as the user named it, or `<config>`.
        data: Its plain values, without those under keys of the user's own.
        document: Where they stand in the file; `None` for a configuration from Python, which has no lines.
        overrides: The `--set` arguments that were applied, in order, and where their values stand.
    """

    name: str
    data: dict[str, Any]
    document: yaml.Node | None = None
    overrides: tuple[tuple[str, KeyPath], ...] = ()

    @classmethod
    def read(cls, path: Path | str) -> "YamlSource":
        """Return the YAML file at `path`, read by the safe loader.

        Raises:
            ConfigurationError: If there is no such file, or it is not a YAML mapping with text keys, each
                given once.
        """
        name = str(path)
        try:
            content = read_foreign(Path(path), MAX_BYTES)
        except FileNotFoundError:
            raise ConfigurationError([f"{name}: no such file."]) from None
        except InputError as error:
            raise ConfigurationError([f"{error}."]) from error
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            fault = f"{name}:{line}: must be UTF-8 text, got byte 0x{content[error.start]:02x}."
            raise ConfigurationError([fault]) from error
        document, data, faults = _parsed(text)
        if document is None and not faults:
            raise ConfigurationError([f"{name}: the file is empty."])
        if document is not None and not isinstance(document, yaml.MappingNode):
            faults.append((_line(document), "must be a mapping of keys to values."))
        if faults:
            raise ConfigurationError([f"{name}:{line}: {text}" for line, text in sorted(faults)])
        return cls(name, _without_free_keys(data), document)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> "YamlSource":
        """Return a configuration given from Python."""
        return cls("<config>", _without_free_keys(_plain(data)))

    def with_overrides(self, settings: Sequence[str]) -> "YamlSource":
        """Return this configuration with `settings` such as `"controller.n_generations=20"` applied.

        Keys that are missing on the way become mappings; the value is read as YAML.

        Raises:
            ConfigurationError: Naming each setting that cannot be applied.
        """
        data, overrides, faults = self.data, self.overrides, []
        for setting in settings:
            try:
                keys, value = _key_and_value(setting)
                data, path = _replaced(data, (), keys, value)
                overrides += ((setting, path),)
            except ValueError as error:
                faults.append(f"--set {setting[:200]}: {error}")
        if faults:
            raise ConfigurationError(faults)
        return replace(self, data=data, overrides=overrides)

    def error(self, faults: Sequence[Fault]) -> ConfigurationError:
        """Return the error that lists `faults` with their places: by line, then those of `--set`."""
        located = sorted({(self._place(fault.path), fault.text): None for fault in faults}, key=lambda x: x[0])
        return ConfigurationError([f"{self._prefix(place)}: {text}" for place, text in located])

    def _place(self, path: KeyPath) -> tuple[int, int]:
        """Return what to sort by: `(0, line)` or `(1, index of the override)` of the nearest known key."""
        set_paths = [set_path for _, set_path in self.overrides]
        for index, set_path in reversed(list(enumerate(set_paths))):
            if path[: len(set_path)] == set_path:
                return 1, index
        node, line = self.document, _line(self.document)
        for depth, key in enumerate(path, 1):
            key_node, node = _entry(node, key)
            if node is None:
                below = (index for index, set_path in enumerate(set_paths) if set_path[:depth] == path[:depth])
                return next(((1, index) for index in below), (0, line))
            line = _line(key_node)
        return 0, line

    def _prefix(self, place: tuple[int, int]) -> str:
        is_override, number = place
        if is_override:
            return f"--set {self.overrides[number][0]}"
        return f"{self.name}:{number}" if number else self.name


def _plain(value: Any) -> Any:
    """Return a value from Python as YAML would give it."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list | tuple) else value


def _without_free_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if not str(key).startswith(_FREE_PREFIX)}


def _line(node: yaml.Node | None) -> int:
    """Return the line at which a node starts, from 1; 0 for none."""
    return node.start_mark.line + 1 if node else 0


def _entry(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Return the nodes of a key and its value, or twice that of an item; `None` for both if there is no such."""
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    # Merged keys stand first, and give way to the mapping's own.
    return next((pair for pair in reversed(pairs) if pair[0].value == key), (None, None))


def _key_and_value(setting: str) -> tuple[list[str], Any]:
    keys_text, equals, text = setting.partition("=")
    keys = keys_text.strip().split(".")
    if not equals or not all(keys):
        raise ValueError("must be KEY.PATH=VALUE.")
    if len(keys) > MAX_DEPTH or len(setting) > MAX_BYTES:
        raise ValueError(f"must have at most {MAX_DEPTH} keys and {MAX_BYTES >> 10} KiB.")
    _, value, faults = _parsed(text)
    if faults:
        raise ValueError(f"the value is wrong: {faults[0][1]}")
    return keys, value


def _replaced(old: Any, path: KeyPath, keys: Sequence[str], new: Any) -> tuple[Any, KeyPath]:
    """Return a copy of `old`, the value at `path`, with `new` at `keys` below it, and the whole path of that."""
    if not keys:
        return new, path
    changed: Any = list(old) if isinstance(old, list) else {} if old is None else old
    key: str | int = keys[0]
    if isinstance(changed, list):
        if not keys[0].isdecimal() or len(keys[0]) > 9 or int(keys[0]) >= len(changed):
            raise ValueError(f"{key_text(path)} is a list of {len(changed)}, so it has no item {key!r}.")
        key = int(keys[0])
        changed[key], whole = _replaced(changed[key], (*path, key), keys[1:], new)
        return changed, whole
    if not isinstance(changed, Mapping):
        raise ValueError(f"{key_text(path)} is no mapping, so it has no {key!r}.")
    value, whole = _replaced(changed.get(key), (*path, key), keys[1:], new)
    return {**changed, key: value}, whole


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as the same values."""

    def represent_text(self, text: str) -> yaml.Node:
        """Return a text as it is, or escaped where PyYAML would fold what it takes for a line break."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def to_yaml_text(data: Mapping[str, Any]) -> str:
    """Return `data` as YAML that reads back as equal data, keys in their order."""
    return yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
    )


def read_value(name: str, text: str) -> Any:
    """Return what `text` is as YAML; an empty one is `None`.

    Raises:
        ConfigurationError: If it is none; `name` says where it was given.
    """
    _, value, faults = _parsed(text[: MAX_BYTES + 1])
    if faults:
        raise ConfigurationError([f"{name}: {faults[0][1]}"])
    return value


_LineFault = tuple[int, str]


def _parsed(text: str) -> tuple[yaml.Node | None, Any, list[_LineFault]]:
    """Return the document of `text`, `None` if there is nothing in it, its value, and what is wrong with it."""
    try:
        loader = _Loader(text)
        document = loader.get_single_node()
        value = loader.build(document) if document else None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, None, [(line, f"not valid YAML: {error.reason}.")]
    except yaml.MarkedYAMLError as error:
        return None, None, lookalikes_in_lines(text) or [_syntax_fault(error)]
    except RecursionError:
        return None, None, [(1, "nested too deeply.")]
    if n_values(value) > MAX_VALUES:
        return None, None, [(1, f"must hold at most {MAX_VALUES:,} values, aliases written out.")]
    return document, value, loader.faults


def _syntax_fault(error: yaml.MarkedYAMLError) -> _LineFault:
    mark = error.problem_mark or error.context_mark
    context = ""
    if error.context and error.context_mark:
        context = f"{error.context} (line {error.context_mark.line + 1}), "
    return (mark.line + 1 if mark else 1), f"not valid YAML: {context}{error.problem}."


_MAP, _SEQUENCE, _TEXT, _MERGE, _FLOAT = (
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "merge", "float")
)
_BEING_BUILT = object()


class _Loader(BoundedLoader):
    """The bounded safe loader, which notes all faults, and takes `1e-3` for the number that its writer meant.

    YAML 1.1 wants a point and a sign: `1.0e-3`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[_LineFault] = []
        self._built: dict[yaml.Node, Any] = {}

    def build(self, node: yaml.Node) -> Any:
        """Return a node's value; of one that aliases share always the same, made once."""
        if node not in self._built:
            self._built[node] = _BEING_BUILT
            self._built[node] = self._value(node)
        if self._built[node] is _BEING_BUILT:
            return self._fault(node, "an anchor must not contain itself.")
        return self._built[node]

    def _fault(self, node: yaml.Node, text: str) -> None:
        self.faults.append((_line(node), text))

    def _value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self._mapping(node)
        if node.tag == _SEQUENCE:
            return [self.build(item) for item in node.value]
        return self._fault(node, f"the tag {node.tag!r} is not allowed.")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.style is None and (surprise := scalar_surprise(node.value, node.tag)) is not None:
            return self._fault(node, surprise)
        try:
            return self.construct_object(node)
        except yaml.constructor.ConstructorError:
            return self._fault(node, f"the tag {node.tag!r} is not allowed.")
        except ValueError as error:  # a date with month 13, a number of thousands of digits
            return self._fault(node, f"{node.value[:40]!r} is no value: {error}.")

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        first: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                self.build(value)
            elif not isinstance(key, yaml.ScalarNode):
                self._fault(key, "a key must be text, got a list or mapping; quote it.")
                continue
            elif key.tag != _TEXT:
                self._fault(key, f"a key must be text, got {key.value[:40]}; quote it.")
            elif key.value in first:
                self._fault(key, f"key {key.value!r} is given twice, first in line {first[key.value]}.")
            elif key.style is None and (fault := lookalike(key.value)) is not None:
                self._fault(key, fault)
            first.setdefault(key.value, _line(key))
        node.value = [pair for pair in node.value if isinstance(pair[0], yaml.ScalarNode)]
        try:
            self.flatten_mapping(node)
        except yaml.constructor.ConstructorError as error:
            mark = error.problem_mark or node.start_mark
            self.faults.append((mark.line + 1, "<< must name a mapping or a list of mappings."))
        # One pair of each key, or mappings that merge others twice would double at each step.
        node.value = list({key.value: (key, value) for key, value in node.value}.values())
        return {key.value: self.build(value) for key, value in node.value}


_EXPONENT_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _EXPONENT_FLOAT, list("-+.0123456789"))
