"""What the data sets that read files share: roots, checks of options, and hashes."""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from nas.data.decoding import CHANNEL_MODES, image_suffixes, is_read_anew
from nas.data.faults import FaultList
from nas.errors import DataError

ROOT_VARIABLE = "NAS_DATA_ROOT"

_BLOCK_BYTES = 1 << 20


def expand_root(root: Path | str) -> Path:
    """Return the option `root` with `~` and `$VARIABLES` expanded.

    Raises:
        DataError: If a variable is not set.
    """
    expanded = os.path.expandvars(root)
    if "$" in expanded:
        raise DataError([f"data.root: {str(root)!r} names an environment variable that is not set"])
    return Path(expanded).expanduser()


def absolute_root(root: Path) -> Path:
    """Return the option `root` such that it means the same folder from wherever it is read; variables stay."""
    text = str(root)
    return root if text.startswith("~") or "$" in text else root.absolute()


def root_or_default(root: Path | str | None, default_folder: str) -> Path:
    """Return `root`, expanded, or the folder of this name under `$NAS_DATA_ROOT`.

    Raises:
        DataError: If a variable that is needed is not set.
    """
    if root is not None:
        return expand_root(root)
    if not os.environ.get(ROOT_VARIABLE):
        holder = f"the folder that holds {default_folder}/"
        raise DataError([f"data.root is missing: give it, or set {ROOT_VARIABLE} to {holder}"])
    return Path(os.environ[ROOT_VARIABLE]) / default_folder


_LARGEST_SIDE = 2**14  # one image of three channels takes 0.8 GB then


def check_height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return the option `image_size` as height and width.

    Raises:
        ValueError: If it is neither a positive integer nor two of them.
    """
    sizes = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"image_size must be a positive integer or [height, width], got {image_size}")
    if max(sizes) > _LARGEST_SIDE:
        raise ValueError(f"image_size must be at most {_LARGEST_SIDE} in height and width, got {image_size}")
    return (sizes[0], sizes[1])


def check_in_channels(in_channels: int) -> int:
    """Return the option `in_channels`.

    Raises:
        ValueError: If it is neither 1 (grey) nor 3 (colour).
    """
    if in_channels not in CHANNEL_MODES:
        raise ValueError(f"in_channels must be 1 (grey) or 3 (colour), got {in_channels}")
    return in_channels


def check_class_names(class_names: Sequence[str], at_most: int | None = 256) -> tuple[str, ...]:
    """Return the option `class_names`.

    Args:
        class_names: As given.
        at_most: How many there may be; 256 is what pixels of 8 bits can tell.

    Raises:
        ValueError: If there are fewer than 2, or two are equal, or there are too many.
    """
    names = tuple(class_names)
    if len(names) < 2 or (at_most is not None and len(names) > at_most) or len(set(names)) != len(names):
        how_many = f"2 to {at_most}" if at_most is not None else "2 or more"
        raise ValueError(f"class_names must be {how_many} different names, got {list(names)}")
    return names


def hash_files(paths: Iterable[Path], root: Path, options: str, *, masks: Collection[Path] = ()) -> str:
    """Return hex digits of `options` and of each file's name under `root`, size and content.

    An image that earlier versions read otherwise gets another hash than they gave it.

    Args:
        paths: The files.
        root: The folder that they are in.
        options: What else the hash is of.
        masks: Those of the files that are read as masks.

    Raises:
        DataError: Naming all files that cannot be read.
    """
    total, faults = hashlib.sha256(options.encode(errors="surrogateescape")), FaultList()
    for path in paths:
        try:
            content = _hash_file(path)
        except OSError as error:
            faults.add(path, f"cannot be read ({error.strerror})")
            continue
        line = f"\n{path.relative_to(root).as_posix()}:{path.stat().st_size}:{content}"
        if path.suffix.lower() in image_suffixes() and is_read_anew(path, is_mask=path in masks):
            line += ":as shown"
        total.update(line.encode(errors="surrogateescape"))
    faults.raise_if_any()
    return total.hexdigest()


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
