"""How a folder of images is laid out, told from what lies in it: for those who have yet to say so."""

import functools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.data.base import Split
from nas.data.decoding import image_suffixes
from nas.data.scanning import SPLIT, SPLIT_NAMES, folders_in, split_of, visible
from nas.errors import DataError

NAME = "{name}"
CLASS = "{class}"

_MASK_WORDS = frozenset(
    {
        "mask", "masks", "label", "labels", "annot", "annots", "annotation", "annotations", "seg", "segmentation",
        "segmentations", "segmentationclass", "gt", "groundtruth", "target", "targets", "anno", "trainannot", "y",
    }
)  # fmt: skip
_MASK_ENDINGS = ("mask", "masks", "label", "labels", "seg", "segmentation", "gt", "annotation", "l", "labelids")
_MAX_DEPTH = 3
_MAX_FOLDERS = 1000
_MAX_NAMES = 2000


@dataclass(frozen=True)
class Layout:
    """A folder of data as one of our kinds reads it.

    Attributes:
        kind: In `DATASETS`.
        root: The folder, which may lie inside the one that was looked at.
        options: Of the kind, where they are not the default.
        splits: Those that have folders or files of their own.
    """

    kind: str
    root: Path
    options: Mapping[str, str] = field(default_factory=dict)
    splits: frozenset[Split] = frozenset()


@dataclass
class _Place:
    """The folders of one pattern, by split; `None` stands for a pattern without a split."""

    folders: dict[Split | None, Path] = field(default_factory=dict)

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names, without suffix, of the images in it."""
        folder = self.folders.get(Split.TRAIN) or next(iter(self.folders.values()))
        return frozenset(path.stem for path in _images(folder))

    @property
    def splits(self) -> frozenset[Split]:
        return frozenset(split for split in self.folders if split is not None)


def find_layout(root: Path) -> Layout | None:
    """Return how the data under `root` is laid out; `None` if it is like nothing that is known.

    Raises:
        DataError: If a folder cannot be listed.
    """
    if root.is_file():
        return Layout("parquet", root.parent, {"train_file": root.name}) if root.suffix.lower() == ".parquet" else None
    for folder in (root, root / "data"):
        files = [path for path in visible(folder) if path.suffix.lower() == ".parquet"] if folder.is_dir() else []
        if files:
            splits = frozenset(split for path in files if (split := split_of(path.stem)) is not None)
            own = {} if Split.TRAIN in splits else {"train_file": files[0].name if len(files) == 1 else "*.parquet"}
            return Layout("parquet", folder, own, splits)
    inner = folders_in(root)
    if len(inner) == 1 and split_of(inner[0].name) is None and not _images(root):
        return find_layout(inner[0])  # an archive that was unpacked into a folder of its own
    places = _places(root)
    return _with_masks(root, places) or _with_classes(root, places)


def advice(root: Path) -> str:
    """Return what to write for the data under `root` to be read, for the end of a message."""
    try:
        layout = find_layout(root)
    except DataError:
        layout = None
    if layout is None:
        return "docs/own_data.md draws the layouts that are read"
    options = {"kind": layout.kind, **({} if layout.root == root else {"root": str(layout.root)}), **layout.options}
    text = ", ".join(
        f'{key}: "{value}"' if set(value) & set("{}*,: ") else f"{key}: {value}" for key, value in options.items()
    )
    return f"it looks like `data: {{{text}}}`, which `nas init --data {shlex.quote(str(root))}` writes whole"


def common_affix(names: Sequence[str], others: Sequence[str]) -> tuple[str, str] | None:
    """Return what stands around most of `names` in `others`, e.g. `("", "_mask")`; `None` if nothing does."""
    counts: dict[tuple[str, str], int] = {}
    known, first = set(names), sorted(others)[:200]
    for other in first:
        for start in range(len(other)):
            for end in range(len(other), start, -1):
                if other[start:end] in known and (start, end) != (0, len(other)):
                    affix = (other[:start], other[end:])
                    counts[affix] = counts.get(affix, 0) + 1
    if not counts:
        return None
    best = max(counts, key=lambda affix: (counts[affix], -len("".join(affix))))
    return best if 2 * counts[best] >= min(len(names), len(first)) else None


def _images(folder: Path) -> list[Path]:
    files = (path for path in visible(folder) if path.suffix.lower() in image_suffixes())
    return [path for path, _ in zip(files, range(_MAX_NAMES), strict=False)]


def _places(root: Path) -> dict[str, _Place]:
    """Return the folders that hold images by their pattern under `root`, at most three levels down."""
    places: dict[str, _Place] = {}
    level, n_seen = [root], 0
    for _ in range(_MAX_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            n_seen += 1
            if n_seen > _MAX_FOLDERS:
                return places
            if _images(folder):
                pattern, split = _pattern_of(folder.relative_to(root))
                places.setdefault(pattern, _Place()).folders.setdefault(split, folder)
            below += folders_in(folder)
        level = below
    return places


def _pattern_of(path: Path) -> tuple[str, Split | None]:
    """Return the pattern and the split of a folder: of `Train/images` `{split}/images` and training."""
    parts, split = [], None
    for part in path.parts:
        found = None if split is not None else _split_part(part)
        if found is not None:
            split, rest = found
            part = f"{SPLIT}{rest}"  # noqa: PLW2901 - the same part as a pattern
        parts.append(part)
    return "/".join(parts) or ".", split


def _split_part(part: str) -> tuple[Split, str] | None:
    """Return the split that a folder's name starts with, and the rest: `_labels` of `train_labels`."""
    for split, names in SPLIT_NAMES.items():
        for name in sorted(names, key=len, reverse=True):
            rest = part[len(name) :]
            if part.casefold().startswith(name) and (not rest or not rest[0].isalpha() or _is_mask_word(rest)):
                return split, rest
    return None


def _is_mask_word(text: str) -> bool:
    return any(word in _MASK_WORDS for word in re.split(r"[^a-z]+", text.casefold()))


def _is_of_masks(pattern: str) -> bool:
    return _is_mask_word(pattern.replace(SPLIT, "/").rpartition("/")[2]) or any(
        _is_mask_word(part) for part in pattern.replace(SPLIT, "/").split("/")
    )


def _with_masks(root: Path, places: Mapping[str, _Place]) -> Layout | None:
    """Return the pair of patterns whose names go together best, or images beside their masks."""
    best: tuple[int, Layout] | None = None
    of_masks = [pattern for pattern in places if _is_of_masks(pattern)]
    for pattern in of_masks:
        for other in places.keys() - set(of_masks):
            if (SPLIT in pattern) != (SPLIT in other):
                continue
            masks, images = places[pattern], places[other]
            n_equal, affix = len(masks.names & images.names), ("", "")
            if 2 * n_equal < min(len(masks.names), len(images.names)):
                affix = common_affix(sorted(images.names), sorted(masks.names)) or ("", "")
                n_equal = sum(f"{affix[0]}{name}{affix[1]}" in masks.names for name in images.names)
            if 2 * n_equal >= min(len(masks.names), len(images.names)) and (best is None or n_equal > best[0]):
                best = n_equal, _pairs_layout(root, other, f"{pattern}/{affix[0]}{NAME}{affix[1]}", images)
    return best[1] if best else _side_by_side(root, places)


def _pairs_layout(root: Path, images: str, masks: str, place: _Place) -> Layout:
    given = {"images": images, "masks": masks.removeprefix("./")}
    is_default = given == {"images": f"{SPLIT}/images", "masks": f"{SPLIT}/masks/{NAME}"}
    return Layout("image_mask_folder", root, {} if is_default else given, place.splits)


def _side_by_side(root: Path, places: Mapping[str, _Place]) -> Layout | None:
    for pattern, place in places.items():
        for name in place.names:
            ending = next((end for end in _MASK_ENDINGS if re.search(rf"[._-]{end}$", name.casefold())), None)
            if ending is None:
                continue
            after = name[-len(ending) - 1 :]
            masks = [other for other in place.names if other.endswith(after)]
            if all(mask.removesuffix(after) in place.names for mask in masks) and 3 * len(masks) >= len(place.names):
                return _pairs_layout(root, pattern, f"{pattern}/{NAME}{after}", place)
    return None


def _with_classes(root: Path, places: Mapping[str, _Place]) -> Layout | None:
    """Return the pattern under which two folders of images or more lie, each a class."""
    above: dict[str, set[str]] = {}
    splits: dict[str, set[Split]] = {}
    for pattern, place in places.items():
        parent, _, last = pattern.rpartition("/")
        if pattern != "." and SPLIT not in last:
            above.setdefault(parent, set()).add(last)
            splits.setdefault(parent, set()).update(place.splits)
    for parent, names in sorted(above.items(), key=lambda item: (SPLIT not in item[0], item[0].count("/"))):
        if len(names) >= 2:
            pattern = f"{parent}/{CLASS}".removeprefix("/")
            options = {} if pattern == f"{SPLIT}/{CLASS}" else {"images": pattern}
            return Layout("image_folder", root, options, frozenset(splits[parent]))
    return None
