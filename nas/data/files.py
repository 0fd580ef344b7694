"""What the data sets that read files share: folders, decoding, splits, hashes, and faults that list all."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from nas.data.base import Split
from nas.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
ROOT_VARIABLE = "NAS_DATA_ROOT"

_DECODER_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
_CHANNEL_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_INDEX_MODES = frozenset({"L", "P", "1"})
_BLOCK_BYTES = 1 << 20

Value = TypeVar("Value")


class FaultList:
    """Collects one line for each fault, so that a single error can name them all."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, where: Path | str, fault: str) -> None:
        """Add the fault of a file or folder."""
        self._lines.append(f"{where}: {fault}")

    def attempt(self, read: Callable[[], Value]) -> Value | None:
        """Return what `read` returns; `None`, keeping its faults, if it raises a `DataError`."""
        try:
            return read()
        except DataError as error:
            self._lines.extend(error.faults)
            return None

    def __bool__(self) -> bool:
        return bool(self._lines)

    def error(self) -> DataError:
        """Return the error that names all that was added."""
        return DataError(self._lines)

    def raise_if_any(self) -> None:
        """Raise what was added.

        Raises:
            DataError: If there was any fault.
        """
        if self:
            raise self.error()


def expand_root(root: Path | str) -> Path:
    """Return the option `root` with `~` and `$VARIABLES` expanded.

    Raises:
        DataError: If a variable is not set.
    """
    expanded = os.path.expandvars(root)
    if "$" in expanded:
        raise DataError([f"data.root: {str(root)!r} names an environment variable that is not set"])
    return Path(expanded).expanduser()


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


def check_height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return the option `image_size` as height and width.

    Raises:
        ValueError: If it is neither a positive integer nor two of them.
    """
    sizes = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"image_size must be a positive integer or [height, width], got {image_size}")
    return (sizes[0], sizes[1])


def check_in_channels(in_channels: int) -> int:
    """Return the option `in_channels`.

    Raises:
        ValueError: If it is neither 1 (grey) nor 3 (colour).
    """
    if in_channels not in _CHANNEL_MODES:
        raise ValueError(f"in_channels must be 1 (grey) or 3 (colour), got {in_channels}")
    return in_channels


def check_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the option `class_names`.

    Raises:
        ValueError: If there are fewer than 2, or two are equal, or more than pixels of 8 bits can tell.
    """
    names = tuple(class_names)
    if not 2 <= len(names) <= 256 or len(set(names)) != len(names):
        raise ValueError(f"class_names must be 2 to 256 different names, got {list(names)}")
    return names


def open_image(source: Path | bytes) -> Image.Image:
    """Return a decoded image, given as a file or as a file's content.

    Raises:
        DataError: If it cannot be decoded or has more than 8 bits a channel.
    """
    return _decode(source, _EIGHT_BIT_MODES, "only images of 8 bits a channel are read")


def open_mask(source: Path) -> Image.Image:
    """Return a decoded mask whose values are class indices (those of the palette where it has one).

    Raises:
        DataError: If it cannot be decoded or is no image of one 8-bit channel.
    """
    return _decode(source, _INDEX_MODES, "a mask must hold class indices in one channel of 8 bits")


def to_array(image: Image.Image, in_channels: int, image_size: tuple[int, int]) -> np.ndarray:
    """Return an image as `(C, H, W)` uint8, resized bilinearly (over the covered area when it shrinks).

    Args:
        image: Of any mode of 8 bits; converted, and transparency dropped.
        in_channels: 1 for grey, 3 for colour.
        image_size: Height and width of the result.
    """
    image = image.convert(_CHANNEL_MODES[in_channels])
    height, width = image_size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if in_channels == 1 else pixels.transpose(2, 0, 1))


def probe_image(source: Path | bytes) -> None:
    """Read an image's header, which costs far less than decoding it.

    Raises:
        DataError: If there is none that can be read.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source):
            pass
    except _DECODER_ERRORS as error:
        raise DataError([_unreadable(source, error)]) from error


def _decode(source: Path | bytes, modes: frozenset[str], requirement: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
    except _DECODER_ERRORS as error:
        raise DataError([_unreadable(source, error)]) from error
    if image.mode not in modes:
        raise DataError([f"{_name(source)}: {requirement}, its mode is {image.mode}"])
    return image


def _name(source: Path | bytes) -> str:
    return "image" if isinstance(source, bytes) else str(source)


def _unreadable(source: Path | bytes, error: Exception) -> str:
    # Pillow repeats the path, or an object's address, in some of its messages.
    reason = "not an image" if "cannot identify" in str(error) else str(error)
    return f"{_name(source)}: cannot be read as an image ({reason})"


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name; other files are passed over."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def find_folder(root: Path, split: Split) -> Path | None:
    """Return the folder of a split, or `None` if it has none. The one for validation may have two names."""
    names = ("val", "validation") if split is Split.VALIDATION else (split.value,)
    return next((root / name for name in names if (root / name).is_dir()), None)


def require_folder(root: Path, split: Split) -> Path:
    """Return the folder of a split.

    Raises:
        DataError: If it is missing.
    """
    folder = find_folder(root, split)
    if folder is None:
        raise DataError([f"{root / split.value}: folder is missing"])
    return folder


def choose_validation(labels: Sequence[int], fraction: float, seed: int) -> np.ndarray:
    """Return which examples are for validation, `(n,)` bool, the same share of each class.

    Of a class with two examples or more at least one goes to each side; a single one is for training.

    Args:
        labels: The class of each example; all equal where classes do not matter.
        fraction: The share for validation.
        seed: Of the choice.
    """
    classes = np.asarray(labels)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(classes), dtype=bool)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        n_chosen = min(max(round(fraction * len(members)), 1), len(members) - 1)
        chosen[members[:n_chosen]] = True
    return chosen


def hash_files(paths: Iterable[Path], root: Path, options: str) -> str:
    """Return hex digits of `options` and of each file's name under `root`, size and content.

    Raises:
        DataError: Naming all files that cannot be read.
    """
    total, faults = hashlib.sha256(options.encode()), FaultList()
    for path in paths:
        try:
            content = _hash_file(path)
        except OSError as error:
            faults.add(path, f"cannot be read ({error.strerror})")
            continue
        total.update(f"\n{path.relative_to(root).as_posix()}:{path.stat().st_size}:{content}".encode())
    faults.raise_if_any()
    return total.hexdigest()


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
