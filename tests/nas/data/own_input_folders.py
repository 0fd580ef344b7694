"""Folders laid out otherwise."""

from pathlib import Path

import numpy as np

from tests.nas.data.own_input import SIDE, folder, image_of, left_half, pairs, save, sizes, write_png

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
