"""What inputs as people bring them are made of; `own_inputs` gathers them."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data import DATASETS, Dataset, Split

SIDE = 8


@dataclass(frozen=True)
class Input:
    """One of them.

    Attributes:
        make: Writes it to a folder.
        kind: Which data set reads it.
        options: Of that, beside `root`.
        holds: Raises an `AssertionError` if the data set does not read the right values.
        told: What a note says; or, where `holds` is `None`, what the error says.
    """

    make: Callable[[Path], None]
    kind: str
    options: dict[str, Any]
    holds: Callable[[Dataset], None] | None = None
    told: tuple[str, ...] = ()

    def dataset(self, root: Path) -> Dataset:
        return DATASETS[self.kind](root=root, **self.options)


INPUTS: dict[str, Input] = {}
MASKS = {"class_names": ("a", "b"), "image_size": SIDE}
CLASSES = {"image_size": SIDE}


def left_half() -> np.ndarray:
    """Return a mask of 8 x 8 whose left half is 1; no turn of it is equal to it."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[:, : SIDE // 2] = 1
    return mask


def image_of(mask: np.ndarray) -> Image.Image:
    """Return an image that is bright where the mask is not 0."""
    return Image.fromarray(np.repeat((mask > 0)[..., None] * 255, 3, axis=2).astype(np.uint8))


def save(path: Path, image: Image.Image | np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)


def write_png(path: Path, rows: bytes, depth: int, colour_type: int, side: int = SIDE) -> None:
    """Write a PNG file of kinds that Pillow only reads."""
    header = struct.pack(">IIBBBBB", side, side, depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def pairs(root: Path, split: str = "train", n: int = 4, images: str = "images", masks: str = "masks") -> None:
    for index in range(n):
        save(root / split / images / f"{index}.png", image_of(left_half()))
        save(root / split / masks / f"{index}.png", left_half())


def with_image(**options: Any) -> Callable[[Callable[[Image.Image, Path], None]], None]:
    """Add an input of pairs whose images a function writes, and whose masks say where they are bright."""

    def add(write: Callable[[Image.Image, Path], None]) -> None:
        def make(root: Path) -> None:
            pairs(root)
            for path in sorted((root / "train" / "images").iterdir()):
                path.unlink()
                write(image_of(left_half()), path)

        INPUTS[write.__name__] = Input(make, "image_mask_folder", MASKS, is_bright_where_masked, **options)

    return add


def with_mask(
    holds: Callable[[Dataset], None] | None, *told: str, **options: Any
) -> Callable[[Callable[[np.ndarray, Path], None]], None]:
    """Add an input of pairs whose masks a function writes."""

    def add(write: Callable[[np.ndarray, Path], None]) -> None:
        def make(root: Path) -> None:
            pairs(root)
            for path in sorted((root / "train" / "masks").iterdir()):
                path.unlink()
                write(left_half(), path)

        INPUTS[write.__name__] = Input(make, "image_mask_folder", MASKS | options, holds, told)

    return add


def folder(
    kind: str, holds: Callable[[Dataset], None] | None, *told: str, **options: Any
) -> Callable[[Callable[[Path], None]], None]:
    """Add an input that a function writes."""

    def add(make: Callable[[Path], None]) -> None:
        known = {"image_mask_folder": MASKS, "image_folder": CLASSES, "parquet": CLASSES}[kind]
        INPUTS[make.__name__] = Input(make, kind, known | options, holds, told)

    return add


def is_bright_where_masked(dataset: Dataset) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        examples = dataset.load(split)
        bright = examples.images.float().mean(dim=1) > 127
        assert (bright == (examples.targets == 1)).all()
        assert (examples.targets == 1).any(dim=(1, 2)).all()


def sizes(*expected: int) -> Callable[[Dataset], None]:
    def holds(dataset: Dataset) -> None:
        assert tuple(len(dataset.load(split)) for split in (Split.TRAIN, Split.VALIDATION)) == expected

    return holds
