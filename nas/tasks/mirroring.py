"""Which classes become which in a mirrored image: the left eye is then a right one."""

import re
from collections.abc import Sequence

FlipPairs = tuple[tuple[str, str], ...]

_OTHER_SIDE = {"left": "right", "l": "r"}
_SIDE = re.compile(r"(?<![a-z])(left|l(?![a-z]))")
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def flip_order(class_names: Sequence[str], flip_pairs: FlipPairs) -> tuple[int, ...]:
    """Return by class index the index of the class that it becomes.

    Raises:
        ValueError: If a pair names no class, the same class twice, or one that is in another pair.
    """
    order = {name: name for name in class_names}
    for left, right in flip_pairs:
        for name in (left, right):
            if name not in order:
                raise ValueError(f"flip_pairs must name classes of {list(class_names)}, got {name!r}")
        if left == right or order[left] != left or order[right] != right:
            raise ValueError(f"flip_pairs must hold each class once, got {[list(pair) for pair in flip_pairs]}")
        order[left], order[right] = right, left
    return tuple(list(class_names).index(order[name]) for name in class_names)


def named_pairs(class_names: Sequence[str]) -> FlipPairs:
    """Return the pairs of classes whose names differ only in words that start with left and right, or are l and r.

    Where a word starts, case tells too: `eyeL` is `eye_l`.
    """
    by_key = {_words(name): name for name in class_names}
    pairs = []
    for key, name in by_key.items():
        other = _SIDE.sub(lambda side: _OTHER_SIDE[side[0]], key)
        if other != key and other in by_key:
            pairs.append((name, by_key[other]))
    return tuple(pairs)


def _words(name: str) -> str:
    return _WORD_STARTS.sub("_", name).lower()
