"""From the values or colours in a mask to the index of each pixel's class."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.decoding import colour_codes, colours_of, decode_colours, decode_mask
from nas.data.faults import shown_list, shown_path
from nas.errors import DataError, DataFault

Colour = tuple[int, int, int]

_IGNORED = 255  # the index that stands for "no class" where values are mapped
_MAX_NAMED = 4  # values of one mask that are told one by one


@dataclass(frozen=True)
class MaskReader:
    """Knows what a mask's values, or its colours, mean.

    Attributes:
        n_classes: Indices from 0 on.
        ignore_index: The value for "no class"; `None` for none.
        values: The value of each class in the files; `None` where values are indices.
        colours: The colour of each class in the files; `None` where they hold values.
        ignore_colour: The colour for "no class"; `None` for none.
    """

    n_classes: int
    ignore_index: int | None = None
    values: Sequence[int] | None = None
    colours: Sequence[Colour] | None = None
    ignore_colour: Colour | None = None

    def __post_init__(self) -> None:
        _check_values(self.n_classes, self.values, self.colours)
        n = self.n_classes
        if self.ignore_colour is not None:
            if self.colours is None or self.ignore_colour in self.colours:
                raise ValueError(f"ignore_color must be none of mask_colors, got {list(self.ignore_colour)}")
            _check_colour("ignore_color", self.ignore_colour)
        if self.ignore_index is None:
            return
        if self.colours is not None:
            raise ValueError("ignore_index has no place beside mask_colors: write ignore_color")
        if self.values is not None and (self.ignore_index in self.values or not 0 <= self.ignore_index < 1 << 16):
            raise ValueError(f"ignore_index must be a value that is none of mask_values, got {self.ignore_index}")
        if self.values is None and not n <= self.ignore_index <= 255:
            raise ValueError(
                f"ignore_index must be {n} .. 255, since 0 .. {n - 1} are classes, got {self.ignore_index}"
            )

    @property
    def ignored_target(self) -> int | None:
        """What stands for "no class" in what `read` returns."""
        if self.values is None and self.colours is None:
            return self.ignore_index
        return None if self.ignore_index is None and self.ignore_colour is None else _IGNORED

    @property
    def options(self) -> tuple[object, ...]:
        """What tells this reader from one of plain indices, for cache keys; nothing for one of those."""
        if self.values is None and self.colours is None:
            return ()
        return (self.values, self.colours, self.ignore_colour)

    def read(self, path: Path) -> np.ndarray:
        """Return the class of each pixel, `(H, W)` uint8.

        Raises:
            DataError: If the file cannot be decoded, or holds what is no class.
        """
        if self.colours is not None:
            return self._from_colours(path)
        values = decode_mask(path)
        found = _values_in(values)
        known = self._known_values
        unknown = [value for value in found.tolist() if value not in known]
        if unknown:
            raise DataError(self._faults(path, found.tolist(), unknown))
        if self.values is None:
            return values.astype(np.uint8)
        table = np.zeros(int(found.max()) + 1, dtype=np.uint8)
        table[found] = [known[value] for value in found.tolist()]
        mapped: np.ndarray = table[values]
        return mapped

    @functools.cached_property
    def _known_values(self) -> dict[int, int]:
        """Return the index for each value of a file."""
        known = dict(zip(self.values, range(self.n_classes), strict=True)) if self.values else {}
        known = known or {index: index for index in range(self.n_classes)}
        if self.ignore_index is not None and self.ignored_target is not None:
            known[self.ignore_index] = self.ignored_target
        return known

    def _from_colours(self, path: Path) -> np.ndarray:
        pixels = decode_colours(path)
        codes = colour_codes(pixels)
        indices = np.full(codes.shape, _IGNORED, dtype=np.uint8)
        is_known = np.zeros(codes.shape, dtype=bool)
        listed = [*enumerate(self.colours or ()), *([(_IGNORED, self.ignore_colour)] if self.ignore_colour else [])]
        for index, colour in listed:
            here = codes == int(colour_codes(np.array(colour)))
            indices[here] = index
            is_known |= here
        if is_known.all():
            return indices
        unknown = colours_of(pixels[~is_known]).tolist()
        if len(unknown) > _MAX_NAMED:
            raise DataError([_smoothed(path, f"{len(unknown)} colours that are no class's")])
        remedy = "give every class's colour in data.mask_colors, or the one that does not count as data.ignore_color"
        raise DataError(
            [
                DataFault(
                    shown_path(path),
                    f"holds the colour {colour}, which is no class's",
                    f"masks hold the colour {colour}, which is no class's",
                    remedy,
                )
                for colour in unknown
            ]
        )

    def _faults(self, path: Path, found: list[int], unknown: list[int]) -> list[DataFault]:
        """Return a fault for each unknown value, or one for a mask that is full of them."""
        if len(unknown) > _MAX_NAMED:
            return [_smoothed(path, f"{len(unknown)} values that are no class ({shown_list(unknown)})")]
        must = self._must()
        return [
            DataFault(
                shown_path(path),
                f"holds the value {value}, must hold {must}",
                f"masks hold the value {value}, must hold {must}",
                self._remedy(value, found),
            )
            for value in unknown
        ]

    def _must(self) -> str:
        known = shown_list(self.values) if self.values else f"0 .. {self.n_classes - 1}"
        return known if self.ignore_index is None else f"{known} or {self.ignore_index}"

    def _remedy(self, value: int, found: list[int]) -> str:
        unlabelled = f"if {value} is unlabelled, write `data: {{ignore_index: {value}}}`"
        if self.values is not None:
            return f"{unlabelled}; if it is a class, add it to data.mask_values and data.class_names"
        if value == 255 and set(found) <= {0, 255} and self.n_classes == 2:
            return f"if 255 is the second class, write `data: {{mask_values: [0, 255]}}`; {unlabelled}"
        if self.ignore_index is not None:
            return "if it is a class, name it in data.class_names, or give each class's value in data.mask_values"
        if value >= 256:
            return "give each class's value in data.mask_values"
        return f"{unlabelled}; if it is a class, name it in data.class_names"


def _values_in(values: np.ndarray) -> np.ndarray:
    """Return the sorted values; by counting where that is faster than sorting."""
    return np.flatnonzero(np.bincount(values.ravel(), minlength=256)) if values.dtype == np.uint8 else np.unique(values)


def _smoothed(path: Path, what: str) -> DataFault:
    return DataFault(
        shown_path(path),
        f"holds {what}",
        "masks hold many values that are no class",
        "masks that were resized smoothly or saved as JPEG look so, and pictures that are no masks: "
        "save masks as PNG, resized by the nearest pixel",
    )


def _check_values(n_classes: int, values: Sequence[int] | None, colours: Sequence[Colour] | None) -> None:
    if values is not None and colours is not None:
        raise ValueError("mask_colors has no place beside mask_values: leave one of both out")
    for name, given in (("mask_values", values), ("mask_colors", colours)):
        if given is not None and (len(given) != n_classes or len(set(given)) != n_classes):
            raise ValueError(f"{name} must be {n_classes} different ones, one for each class, got {list(given)}")
    if values is not None and not all(0 <= value < 1 << 16 for value in values):
        raise ValueError(f"mask_values must lie in 0 .. 65535, got {list(values)}")
    for colour in colours or ():
        _check_colour("mask_colors", colour)


def _check_colour(name: str, colour: Sequence[int]) -> None:
    if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
        raise ValueError(f"{name} must be of three numbers in 0 .. 255, got {list(colour)}")
