"""Bounds of what is read as YAML: its size before it is parsed, its depth and its aliases while it is."""

from typing import Any

import yaml

MAX_BYTES = 128 << 10
MAX_DEPTH = 64
MAX_VALUES = 100_000  # once aliases are written out
_MAX_ALIASES = 1000
_MAX_NUMBER_LENGTH = 1000  # characters of what is no text
_TEXT_TAG = "tag:yaml.org,2002:str"


class BoundedLoader(yaml.SafeLoader):
    """The safe loader, which refuses what would take it long; whatever its values raise becomes a `ValueError`.

    PyYAML looks at all open brackets at every token, and goes down into values by recursion.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._n_aliases = 0

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        """Go into a list or mapping in brackets."""
        self._check_depth()
        super().fetch_flow_collection_start(token_class)

    def add_indent(self, column: int) -> bool:
        """Go into an indented list or mapping."""
        self._check_depth()
        return bool(super().add_indent(column))

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node."""
        if self.check_event(yaml.AliasEvent):
            self._n_aliases += 1
            if self._n_aliases > _MAX_ALIASES:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(problem=f"there must be at most {_MAX_ALIASES:,} aliases", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        if node.tag != _TEXT_TAG and isinstance(node, yaml.ScalarNode) and len(node.value) > _MAX_NUMBER_LENGTH:
            raise ValueError(f"a number or date must have at most {_MAX_NUMBER_LENGTH:,} characters")
        try:
            value = super().construct_object(node, deep)
        except (yaml.YAMLError, ValueError):
            raise
        except Exception as error:
            raise ValueError(f"not of the type {node.tag.rpartition(':')[2]!r}") from error
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a text must not hold the character NUL")
        return value

    def _check_depth(self) -> None:
        if self.flow_level + len(self.indents) >= MAX_DEPTH:
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)


def n_values(value: Any, known: dict[int, int] | None = None) -> int:
    """Return the number of values in a value, those that aliases share counted each time."""
    if not isinstance(value, dict | list):
        return 1
    known = {} if known is None else known
    if id(value) not in known:
        children = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(n_values(child, known) for child in children)
    return known[id(value)]
