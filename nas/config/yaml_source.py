"""YAML read as data that remembers the line of each key, so that a fault can name it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
class _Node:
    """A value with the places of everything in it."""

    value: Any
    line: int | None = None
    override: int | None = None  # index of the --set that it came from
    children: Mapping[str | int, "_Node"] = field(default_factory=dict)


def _mapping(children: Mapping[str | int, _Node], line: int | None, override: int | None = None) -> _Node:
    return _Node({key: child.value for key, child in children.items()}, line, override, children)


def _sequence(items: Sequence[_Node], line: int | None, override: int | None = None) -> _Node:
    return _Node([item.value for item in items], line, override, dict(enumerate(items)))


def _of_value(value: Any) -> _Node:
    if isinstance(value, Mapping):
        return _mapping({key: _of_value(child) for key, child in value.items()}, None)
    if isinstance(value, list | tuple):
        return _sequence([_of_value(child) for child in value], None)
    return _Node(value)


def _without_free_keys(root: _Node) -> _Node:
    """Return the tree without the keys at its top that mean nothing to us, by what they start with."""
    kept = {key: child for key, child in root.children.items() if not str(key).startswith(_FREE_PREFIX)}
    return root if len(kept) == len(root.children) else _mapping(kept, root.line, root.override)


@dataclass(frozen=True)
class YamlSource:
    """A configuration as it was written, with the line of each key.

    Attributes:
        name: What faults call it: the file as the user named it, or `<config>`.
        root: The tree of values.
        overrides: The `--set` arguments that were applied, in order.
    """

    name: str
    root: _Node
    overrides: tuple[str, ...] = ()

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
            raise ConfigurationError(
                [f"{name}:{line}: must be UTF-8 text, got byte 0x{content[error.start]:02x}."]
            ) from error
        root, faults = _parse(text)
        if root is None and not faults:
            raise ConfigurationError([f"{name}: the file is empty."])
        if root is not None and not isinstance(root.value, dict):
            faults.append((root.line or 1, "must be a mapping of keys to values."))
        if root is None or faults:
            raise ConfigurationError([f"{name}:{line}: {text}" for line, text in sorted(faults)])
        return cls(name, _without_free_keys(root))

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> "YamlSource":
        """Return a configuration given from Python; it has no lines."""
        return cls("<config>", _without_free_keys(_of_value(data)))

    @property
    def data(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return dict(self.root.value)

    def with_overrides(self, settings: Sequence[str]) -> "YamlSource":
        """Return this configuration with `settings` such as `"controller.n_generations=20"` applied.

        Keys that are missing on the way become mappings; the value is read as YAML.

        Raises:
            ConfigurationError: Naming each setting that cannot be applied.
        """
        root, faults, n_before = self.root, [], len(self.overrides)
        for index, setting in enumerate(settings, n_before):
            try:
                root = _apply(root, setting, index)
            except _SettingError as error:
                faults.append(f"--set {setting[:200]}: {error}")
        if faults:
            raise ConfigurationError(faults)
        return replace(self, root=root, overrides=(*self.overrides, *settings))

    def error(self, faults: Sequence[Fault]) -> ConfigurationError:
        """Return the error that lists `faults` with their places: by line, then those of `--set`."""
        located = sorted({(self._place(fault.path), fault.text): None for fault in faults}, key=lambda x: x[0])
        return ConfigurationError([f"{self._prefix(place)}: {text}" for place, text in located])

    def _place(self, path: KeyPath) -> tuple[int, int]:
        """Return what to sort by: `(0, line)` or `(1, index of the override)` of the nearest known key."""
        node, override, line = self.root, self.root.override, self.root.line or 0
        for key in path:
            if key not in node.children:
                break
            node = node.children[key]
            line = node.line or line
            override = node.override if node.override is not None else override
        return (0, line) if override is None else (1, override)

    def _prefix(self, place: tuple[int, int]) -> str:
        is_override, number = place
        if is_override:
            return f"--set {self.overrides[number]}"
        return f"{self.name}:{number}" if number else self.name


class _SettingError(Exception):
    """A `--set` argument that cannot be applied."""


def _apply(root: _Node, setting: str, index: int) -> _Node:
    path_text, equals, value_text = setting.partition("=")
    keys = path_text.strip().split(".")
    if not equals or not all(keys):
        raise _SettingError("must be KEY.PATH=VALUE.")
    if len(keys) > MAX_DEPTH or len(setting) > MAX_BYTES:
        raise _SettingError(f"must have at most {MAX_DEPTH} keys and {MAX_BYTES >> 10} KiB.")
    value, faults = _parse(value_text)
    if faults:
        raise _SettingError(f"the value is wrong: {faults[0][1]}")
    return _replace(root, (), keys, replace(value or _Node(None), override=index), index)


def _replace(node: _Node, path: KeyPath, keys: Sequence[str], new: _Node, index: int) -> _Node:
    """Return `node`, which stands at `path`, with `new` at `keys` below it."""
    if not keys:
        return new
    children = dict(node.children)
    key = _child_key(node, path, keys[0])
    child = children.get(key, _Node({}, override=index))
    if child.value is None and len(keys) > 1:
        child = _Node({}, child.line, index)
    children[key] = _replace(child, (*path, key), keys[1:], new, index)
    if isinstance(node.value, list):
        return _sequence(list(children.values()), node.line, node.override)
    return _mapping(children, node.line, node.override)


def _child_key(node: _Node, path: KeyPath, key: str) -> str | int:
    if isinstance(node.value, dict):
        return key
    if not isinstance(node.value, list):
        raise _SettingError(f"{key_text(path)} is no mapping, so it has no {key!r}.")
    if not key.isdecimal() or len(key) > 9 or int(key) >= len(node.value):
        raise _SettingError(f"{key_text(path)} is a list of {len(node.value)}, so it has no item {key!r}.")
    return int(key)


class _Loader(BoundedLoader):
    """The bounded safe loader, which also takes `1e-3` for the number that its writer meant.

    YAML 1.1 wants a point and a sign: `1.0e-3`.
    """


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as the same values."""

    def represent_text(self, text: str) -> yaml.Node:
        """Return a text as it is, or escaped where PyYAML would fold what it takes for a line break."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


_EXPONENT_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_FLOAT, list("-+.0123456789"))


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
    root, faults = _parse(text[: MAX_BYTES + 1])
    if faults:
        raise ConfigurationError([f"{name}: {faults[0][1]}"])
    return None if root is None else root.value


_LineFault = tuple[int, str]


def _parse(text: str) -> tuple[_Node | None, list[_LineFault]]:
    """Return the tree of `text`, `None` if there is nothing in it, and what is wrong with it."""
    try:
        loader = _Loader(text)
        document = loader.get_single_node()
        if document is None:
            return None, []
        builder = _TreeBuilder(loader)
        root = builder.build(document)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, [(line, f"not valid YAML: {error.reason}.")]
    except yaml.MarkedYAMLError as error:
        return None, lookalikes_in_lines(text) or [_syntax_fault(error)]
    except RecursionError:
        return None, [(1, "nested too deeply.")]
    if n_values(root) > MAX_VALUES:
        return None, [(1, f"must hold at most {MAX_VALUES:,} values, aliases written out.")]
    return root, builder.faults


def _syntax_fault(error: yaml.MarkedYAMLError) -> _LineFault:
    mark = error.problem_mark or error.context_mark
    context = ""
    if error.context and error.context_mark:
        context = f"{error.context} (line {error.context_mark.line + 1}), "
    return (mark.line + 1 if mark else 1), f"not valid YAML: {context}{error.problem}."


_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_MERGE_TAG = "tag:yaml.org,2002:merge"


class _TreeBuilder:
    """Turns YAML's nodes into ours. A node that aliases share is built once, however often it is named."""

    def __init__(self, loader: _Loader) -> None:
        self.faults: list[_LineFault] = []
        self._loader = loader
        self._built: dict[yaml.Node, _Node] = {}
        self._open: set[yaml.Node] = set()

    def build(self, node: yaml.Node) -> _Node:
        if node in self._built:
            return self._built[node]
        line = node.start_mark.line + 1
        if node in self._open:
            return self._fault(line, "an anchor must not contain itself.")
        self._open.add(node)
        if isinstance(node, yaml.ScalarNode):
            built = self._scalar(node, line)
        elif node.tag not in _PLAIN_TAGS:
            built = self._fault(line, f"the tag {node.tag!r} is not allowed.")
        elif isinstance(node, yaml.SequenceNode):
            built = _sequence([self.build(item) for item in node.value], line)
        else:
            built = self._mapping(node, line)
        self._open.remove(node)
        self._built[node] = built
        return built

    def _fault(self, line: int, text: str) -> _Node:
        self.faults.append((line, text))
        return _Node(None, line)

    def _scalar(self, node: yaml.ScalarNode, line: int) -> _Node:
        if node.style is None and (surprise := scalar_surprise(node.value, node.tag)) is not None:
            return self._fault(line, surprise)
        return self._value(node, line)

    def _value(self, node: yaml.ScalarNode, line: int) -> _Node:
        try:
            return _Node(self._loader.construct_object(node), line)
        except yaml.constructor.ConstructorError:
            return self._fault(line, f"the tag {node.tag!r} is not allowed.")
        except ValueError as error:  # a date with month 13, a number of thousands of digits
            return self._fault(line, f"{node.value[:40]!r} is no value: {error}.")

    def _mapping(self, node: yaml.Node, line: int) -> _Node:
        merged: dict[str | int, _Node] = {}
        own: dict[str | int, _Node] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE_TAG:
                merged = self._merge(value_node, key_line) | merged
                continue
            key = self._key(key_node, key_line)
            if not isinstance(key, str):
                written = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self._fault(key_line, f"a key must be text, got {written}; quote it.")
            elif key in own:
                self._fault(key_line, f"key {key!r} is given twice, first in line {own[key].line}.")
            else:
                own[key] = replace(self.build(value_node), line=key_line)
        return _mapping(merged | own, line)

    def _key(self, node: yaml.Node, line: int) -> Any:
        """Return a key's value; one that is no text is refused whatever it is read as."""
        if not isinstance(node, yaml.ScalarNode):
            return self.build(node).value
        if node.style is None and (fault := lookalike(node.value)) is not None:
            self._fault(line, fault)
        return self._value(node, line).value

    def _merge(self, node: yaml.Node, line: int) -> dict[str | int, _Node]:
        """Return the children of the mappings that `<<` names; of equal keys the first one's."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        children: dict[str | int, _Node] = {}
        for source in reversed(sources):
            if isinstance(source, yaml.MappingNode):
                children |= self.build(source).children
            else:
                self._fault(line, "<< must name a mapping or a list of mappings.")
        return children
