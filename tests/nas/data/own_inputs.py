"""Inputs as people bring them, each with what must come of it: the right value, or words that help.

`python -m tests.nas.data.own_inputs FOLDER` writes all of them, a folder each, to look at.
"""

import io
import json
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image, ImageCms

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


# --- images


@with_image()
def sideways(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif, quality=100)


@with_image()
def mirrored_png(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 2
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, exif=exif)


@with_image()
def broken_exif(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".jpg"), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", quality=100)


@with_image()
def cmyk(image: Image.Image, path: Path) -> None:
    image.convert("CMYK").save(path.with_suffix(".jpg"), quality=100)


@with_image()
def palette_with_transparency(image: Image.Image, path: Path) -> None:
    mask = (np.asarray(image)[..., 0] > 0).astype(np.uint8)
    drawn = Image.fromarray(mask)
    drawn.putpalette([0, 0, 0, 0, 0, 0])  # bright only where it is transparent: what viewers show is white
    drawn.save(path, transparency=bytes([255, 0]))


@with_image()
def transparent(image: Image.Image, path: Path) -> None:
    bright = np.asarray(image)[..., 0]
    pixels = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    pixels[..., 3] = 255 - bright  # black, and nothing where it is to be bright
    Image.fromarray(pixels).save(path)


@with_image()
def grey_of_16_bits(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257).save(path)


@with_image(told=("4 images have 16 bits and use the lowest 12 at most",))
def dark_of_16_bits(image: Image.Image, path: Path) -> None:
    bright = np.asarray(image)[..., 0] > 0
    Image.fromarray(np.where(bright, 4095, 0).astype(np.uint16)).save(path)


INPUTS["dark_of_16_bits"] = Input(
    INPUTS["dark_of_16_bits"].make, "image_mask_folder", MASKS, sizes(3, 1), INPUTS["dark_of_16_bits"].told
)


@with_image()
def rgb_of_16_bits(image: Image.Image, path: Path) -> None:
    rows = np.asarray(image).astype(">u2") * 257
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    write_png(path, data, depth=16, colour_type=2)


@with_image(told=("4 images hold several frames, of which the first is read",))
def animated(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".gif"), save_all=True, append_images=[Image.new("RGB", image.size)] * 2)


@with_image()
def tiff(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".TIF"))


@with_image()
def webp(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".webp"), lossless=True)


@with_image()
def jpeg_called_png(image: Image.Image, path: Path) -> None:
    image.save(path, "JPEG", quality=100)


@with_image()
def srgb_profile(image: Image.Image, path: Path) -> None:
    image.save(path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


@with_image()
def broken_profile(image: Image.Image, path: Path) -> None:
    image.save(path, icc_profile=b"no profile")


# --- masks


@with_mask(is_bright_where_masked)
def mask_of_a_palette(mask: np.ndarray, path: Path) -> None:
    drawn = Image.fromarray(mask)
    drawn.putpalette([0, 0, 0, 128, 0, 0])
    drawn.save(path)


@with_mask(is_bright_where_masked)
def mask_in_three_channels(mask: np.ndarray, path: Path) -> None:
    save(path, np.repeat(mask[..., None], 3, axis=2))


@with_mask(is_bright_where_masked)
def mask_of_one_bit(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(mask * 255).convert("1").save(path)


@with_mask(is_bright_where_masked)
def mask_of_four_bits(mask: np.ndarray, path: Path) -> None:
    rows = [bytes(int(row[i]) << 4 | int(row[i + 1]) for i in range(0, SIDE, 2)) for row in mask]
    write_png(path, b"".join(b"\0" + row for row in rows), depth=4, colour_type=0)


@with_mask(is_bright_where_masked)
def mask_of_16_bits(mask: np.ndarray, path: Path) -> None:
    save(path, mask.astype(np.uint16))


@with_mask(is_bright_where_masked, mask_values=(0, 1000))
def mask_of_large_values(mask: np.ndarray, path: Path) -> None:
    save(path, mask.astype(np.uint16) * 1000)


@with_mask(is_bright_where_masked, mask_values=(0, 255))
def mask_of_0_and_255(mask: np.ndarray, path: Path) -> None:
    save(path, mask * 255)


@with_mask(None, "4 masks hold the value 255, must hold 0 .. 1", "`data: {mask_values: [0, 255]}`")
def mask_of_0_and_255_unmapped(mask: np.ndarray, path: Path) -> None:
    save(path, mask * 255)


@with_mask(is_bright_where_masked, mask_colors=((0, 0, 0), (255, 0, 0)))
def mask_of_colours(mask: np.ndarray, path: Path) -> None:
    save(path, mask[..., None] * np.array([255, 0, 0], dtype=np.uint8))


@with_mask(None, "4 masks hold colours", "mask_colors: [[R, G, B], ...]")
def mask_of_colours_unmapped(mask: np.ndarray, path: Path) -> None:
    save(path, mask[..., None] * np.array([255, 0, 0], dtype=np.uint8))


@with_mask(None, "4 masks hold the value 11, must hold 0 .. 1", "`data: {ignore_index: 11}`")
def mask_with_unlabelled_pixels(mask: np.ndarray, path: Path) -> None:
    save(path, np.where(mask == 0, 11, mask).astype(np.uint8))


@with_mask(None, "4 masks are in a format whose compression changes class indices", "save masks as PNG")
def mask_as_jpeg(mask: np.ndarray, path: Path) -> None:
    save(path.with_suffix(".jpg"), mask)


@with_mask(None, "4 masks hold many values that are no class", "resized by the nearest pixel")
def mask_that_was_smoothed(mask: np.ndarray, path: Path) -> None:
    save(path, np.tile(np.arange(0, 80, 10, dtype=np.uint8), (SIDE, 1)))


@with_mask(None, "masks are of another size than their images")
def mask_of_another_size(mask: np.ndarray, path: Path) -> None:
    save(path, mask[:4])


@with_mask(None, "files cannot be read as images")
def mask_that_is_cut_off(mask: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (SIDE, SIDE), dtype=np.uint8)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:50])


# --- folders of images and masks


@folder("image_mask_folder", sizes(4, 2), "for validation (VAL/)")
def splits_in_any_case(root: Path) -> None:
    pairs(root, "Training")
    pairs(root, "VAL", n=2)


@folder("image_mask_folder", sizes(4, 2), "the test is in testing/")
def valid_and_testing(root: Path) -> None:
    pairs(root)
    pairs(root, "valid", n=2)
    pairs(root, "testing", n=2)


@folder("image_mask_folder", None, "val and validation are both for validation", "keep one of them")
def two_validation_folders(root: Path) -> None:
    for split in ("train", "val", "validation"):
        pairs(root, split)


@folder("image_mask_folder", sizes(3, 1), "1 of no split (", "extra)", "4 hidden or of")
def rubbish_beside(root: Path) -> None:
    pairs(root)
    (root / "extra").mkdir()
    (root / "__MACOSX").mkdir()
    for name in (".DS_Store", "train/images/._0.png", "train/images/Thumbs.db"):
        (root / name).write_bytes(b"rubbish")


@folder("image_mask_folder", None, 'if these are their masks, write `data: {masks: "{split}/masks/{name}_mask"}`')
def masks_with_an_ending(root: Path) -> None:
    pairs(root)
    for path in (root / "train" / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))


@folder("image_mask_folder", sizes(3, 1), images="{split}", masks="{split}/{name}_mask")
def masks_beside_images(root: Path) -> None:
    for index in range(4):
        save(root / "train" / f"{index}.jpg", image_of(left_half()))
        save(root / "train" / f"{index}_mask.png", left_half())


@folder("image_mask_folder", None, 'images: "images/{split}"', "nas init --data")
def folders_the_other_way_round(root: Path) -> None:
    for split in ("train", "val"):
        for index in range(3):
            save(root / "images" / split / f"{index}.png", image_of(left_half()))
            save(root / "masks" / split / f"{index}.png", left_half())


@folder("image_mask_folder", None, "300 images have no mask", "add the masks, or take the images out")
def many_images_without_masks(root: Path) -> None:
    pairs(root)
    content = (root / "train" / "images" / "0.png").read_bytes()
    for index in range(300):
        (root / "train" / "images" / f"photo{index}x.png").write_bytes(content)


@folder("image_mask_folder", None, "holds no images", "10 of suffix .heic, Pillow does not decode them")
def phone_pictures(root: Path) -> None:
    (root / "train" / "masks").mkdir(parents=True)
    (root / "train" / "images").mkdir()
    for index in range(10):
        (root / "train" / "images" / f"{index}.heic").write_bytes(b"heic")


@folder("image_mask_folder", None, "data.root: ", "folder is missing")
def nothing(root: Path) -> None:
    root.rmdir()


# --- folders of classes


def classes(root: Path, split: str = "train", suffix: str = "png", **numbers: int) -> None:
    for name, n in numbers.items():
        for index in range(n):
            save(root / split / name / f"{index}.{suffix}", np.full((SIDE, SIDE, 3), index, dtype=np.uint8))


@folder("image_folder", sizes(54, 6))
def formats_mixed(root: Path) -> None:
    classes(root, cat=5, dog=5)
    for name in ("cat", "dog"):
        for index in range(25):
            save(root / "train" / name / f"w{index}.webp", np.full((SIDE, SIDE, 3), index, dtype=np.uint8))


@folder("image_folder", None, "is no class: train/horse is missing")
def unknown_class_in_validation(root: Path) -> None:
    classes(root, cat=3, dog=3)
    classes(root, "val", cat=1, horse=1)


@folder("image_folder", None, '`data: {kind: image_folder, images: "{class}"}`')
def classes_without_splits(root: Path) -> None:
    classes(root, ".", cat=3, dog=3)


@folder("image_folder", sizes(4, 2), images="{class}")
def classes_without_splits_said(root: Path) -> None:
    classes(root, ".", cat=3, dog=3)


@folder("image_folder", None, "must hold a folder for each of 2 classes or more, has 1")
def one_class(root: Path) -> None:
    classes(root, cat=3)


@folder("image_folder", None, "cannot be read as an image (not an image)")
def text_called_png(root: Path) -> None:
    classes(root, cat=3, dog=3)
    for index in range(3):
        (root / "train" / "cat" / f"{index}.png").write_text("no image")


@folder("image_folder", None, "cannot be read as an image")
def postscript_called_png(root: Path) -> None:
    classes(root, cat=3, dog=3)
    (root / "train" / "cat" / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")


@folder("image_folder", None, "pixels")
def bomb(root: Path) -> None:
    classes(root, cat=3, dog=3)
    write_png(root / "train" / "cat" / "0.png", b"", depth=8, colour_type=2, side=40_000)


@folder("image_folder", None, "line\\nbreak")
def line_break_in_a_name(root: Path) -> None:
    classes(root, cat=3, dog=3)
    (root / "train" / "cat" / "line\nbreak.png").write_bytes(b"")


@folder("image_folder", sizes(4, 2))
def a_name_that_is_no_text(root: Path) -> None:
    classes(root, cat=3, dog=3)
    path = root / "train" / "cat" / "0.png"
    path.rename(path.with_name("\udcff.png"))


# --- Parquet files


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), grey, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, labels: Any, names: list[Any] | None = None, image: str = "img", label: str = "label") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(index), "path": None} for index in range(len(labels))]
    written = pyarrow.table({image: images, label: labels})
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        written = written.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(written, path)


def named(*names: str) -> Callable[[Dataset], None]:
    """Return what holds where image number i is of class number i modulo the number of classes."""

    def holds(dataset: Dataset) -> None:
        assert dataset.class_names == names
        for split in (Split.TRAIN, Split.VALIDATION):
            examples = dataset.load(split)
            assert (examples.images[:, 0, 0, 0] % len(names)).tolist() == examples.targets.tolist()

    return holds


@folder("parquet", named("cat", "dog"))
def labels_as_texts(root: Path) -> None:
    table(root / "train.parquet", ["cat", "dog"] * 6)


@folder("parquet", named("cat", "dog"))
def labels_as_a_dictionary(root: Path) -> None:
    table(root / "train-0.parquet", pyarrow.array(["cat", "dog"] * 6).dictionary_encode())


@folder("parquet", named("0", "1"), "they are called by their numbers")
def labels_in_structures(root: Path) -> None:
    table(root / "train-0.parquet", [{"id": 0}, {"id": 1}] * 6)


@folder("parquet", named("cat", "dog"))
def names_in_the_metadata(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6, names=["cat", "dog"])


@folder("parquet", None, "some are given twice (cat)", "give data.class_names")
def names_that_repeat(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6, names=["cat", "cat"])


@folder("parquet", None, "some are missing", "give data.class_names")
def names_that_are_missing(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6, names=["cat", None])


@folder("parquet", None, "without a gap, holds 0, 1, 1000000", "1000000 in 1 row", "correct the labels")
def a_label_of_a_million(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6 + [10**6])


@folder("parquet", None, "holds 0, 1, 7", "`data: {label_values: [0, 1, 7]}`")
def labels_with_a_gap(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1, 7] * 4)


@folder("parquet", named("0", "1", "7"), label_values=(0, 1, 7))
def labels_with_a_gap_said(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1, 7] * 4)


@folder("parquet", None, "labels must be 0 .. 1, 3 rows hold -1", "-1 stands for rows without a label")
def labels_of_minus_one(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6 + [-1] * 3, names=["cat", "dog"])


@folder("parquet", None, "lacks the label of 2 rows")
def labels_that_are_missing(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1, None] * 2)


@folder("parquet", None, "`data: {image_column: image}`", "`data: {label_column: fine_label}`")
def columns_of_other_names(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 3, image="image", label="fine_label")


@folder("parquet", sizes(6, 4), "4 for validation (valid-0.parquet)", "1 named as no split (")
def hub_folder(root: Path) -> None:
    table(root / "data" / "train-0.parquet", [0, 1] * 3)
    table(root / "data" / "valid-0.parquet", [0, 1] * 2)
    table(root / "data" / "other.parquet", [0, 1] * 2)


@folder("parquet", None, "cannot be read as a Parquet file")
def no_parquet_at_all(root: Path) -> None:
    (root / "train-0.parquet").write_bytes(b"PAR1 and nothing else")


if __name__ == "__main__":
    for name, given in INPUTS.items():
        target = Path(sys.argv[1]) / name
        target.mkdir(parents=True)
        given.make(target)
