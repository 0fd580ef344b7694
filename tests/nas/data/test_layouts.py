"""Layouts are told from what lies in a folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import Split
from nas.data.inspection import inspect
from nas.data.layouts import Layout, advice, common_affix, find_layout
from nas.errors import DataError

TRAIN, VALIDATION, TEST = Split


def draw(root: Path, *patterns: str, names: str = "abc", values: int = 2) -> None:
    """Write small files: `*` in a pattern stands for each of the names."""
    for pattern in patterns:
        for index, name in enumerate(names):
            path = root / pattern.replace("*", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            is_mask = path.suffix == ".png"
            pixels = (np.arange(64).reshape(8, 8) + index) % values if is_mask else np.zeros((8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)


CASES = [
    (["train/images/*.jpg", "train/masks/*.png", "val/images/*.jpg", "val/masks/*.png"], {}, {TRAIN, VALIDATION}),
    (["Train/images/*.jpg", "Train/masks/*.png"], {}, {TRAIN}),
    (
        [
            "images/training/*.jpg",
            "annotations/training/*.png",
            "images/validation/*.jpg",
            "annotations/validation/*.png",
        ],
        {"images": "images/{split}", "masks": "annotations/{split}/{name}"},
        {TRAIN, VALIDATION},
    ),
    (["train/*.jpg", "trainannot/*.png"], {"images": "{split}", "masks": "{split}annot/{name}"}, {TRAIN}),
    (
        ["train/*.jpg", "train_labels/*_L.png", "test/*.jpg", "test_labels/*_L.png"],
        {"images": "{split}", "masks": "{split}_labels/{name}_L"},
        {TRAIN, TEST},
    ),
    (["images/*.jpg", "masks/*.png"], {"images": "images", "masks": "masks/{name}"}, set()),
    (["images/*.jpg", "masks/*_mask.png"], {"images": "images", "masks": "masks/{name}_mask"}, set()),
    (
        ["JPEGImages/*.jpg", "SegmentationClass/*.png"],
        {"images": "JPEGImages", "masks": "SegmentationClass/{name}"},
        set(),
    ),
    (["train/*.jpg", "train/*_mask.png"], {"images": "{split}", "masks": "{split}/{name}_mask"}, {TRAIN}),
    (["*.jpg", "*_mask.png"], {"images": ".", "masks": "{name}_mask"}, set()),
]


@pytest.mark.parametrize(("files", "options", "splits"), CASES)
def test_images_with_masks(tmp_path, files, options, splits):
    draw(tmp_path, *files)
    assert find_layout(tmp_path) == Layout("image_mask_folder", tmp_path, options, frozenset(splits))
    found = inspect(tmp_path)
    assert (found.n_train, found.class_names, found.size) == (3, ("background", "foreground"), (8, 8))


@pytest.mark.parametrize(
    ("files", "options", "splits"),
    [
        (["train/cat/*.jpg", "train/dog/*.jpg", "Test/cat/*.jpg"], {}, {TRAIN, TEST}),
        (["cat/*.jpg", "dog/*.jpg"], {"images": "{class}"}, set()),
        (
            ["images/train/cat/*.jpg", "images/train/dog/*.jpg", "papers/*.jpg"],
            {"images": "images/{split}/{class}"},
            {TRAIN},
        ),
    ],
)
def test_folders_of_classes(tmp_path, files, options, splits):
    draw(tmp_path, *files)
    assert find_layout(tmp_path) == Layout("image_folder", tmp_path, options, frozenset(splits))
    found = inspect(tmp_path)
    assert (found.n_train, found.class_names) == (6, ("cat", "dog"))


def test_a_folder_in_a_folder_is_looked_into(tmp_path):
    draw(tmp_path, "archive/train/cat/*.jpg", "archive/train/dog/*.jpg", "__MACOSX/cat/*.jpg")
    assert find_layout(tmp_path) == Layout("image_folder", tmp_path / "archive", {}, frozenset({TRAIN}))
    text = advice(tmp_path)
    assert text.startswith(
        f"it looks like `data: {{kind: image_folder, root: {tmp_path}/archive}}`, which `nas init --data"
    )


def test_what_is_like_nothing_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    assert find_layout(tmp_path) is None
    with pytest.raises(DataError, match=r"holds no images with masks.*docs/own_data.md draws the layouts"):
        inspect(tmp_path)


def masks_of(root: Path, values: np.ndarray) -> dict[str, object]:
    draw(root, "images/*.jpg")
    (root / "masks").mkdir()
    for name in "abc":
        Image.fromarray(values.astype(np.uint8)).save(root / "masks" / f"{name}.png")
    found = inspect(root)
    return {
        key: value for key, value in found.options.items() if key in ("mask_values", "ignore_index", "mask_colors")
    } | {"n": len(found.class_names)}


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([[0, 1], [2, 2]], {"n": 3}),
        ([[0, 255], [255, 0]], {"mask_values": [0, 255], "n": 2}),
        ([[0, 1], [255, 1]], {"ignore_index": 255, "n": 2}),
        ([[0, 1], [3, 7]], {"mask_values": [0, 1, 3, 7], "n": 4}),
        ([[10, 20], [255, 20]], {"ignore_index": 255, "mask_values": [10, 20], "n": 2}),
        ([[[0, 0, 0], [9, 0, 0]]], {"mask_colors": [[0, 0, 0], [9, 0, 0]], "n": 2}),
    ],
)
def test_what_masks_hold_is_written(tmp_path, values, options):
    assert masks_of(tmp_path, np.array(values)) == options


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.arange(100).reshape(10, 10)])
def test_masks_of_no_classes_are_refused(tmp_path, values):
    with pytest.raises(DataError, match="must hold 2 to 64"):
        masks_of(tmp_path, values)


def test_names_come_from_a_list_beside_the_data(tmp_path):
    draw(tmp_path, "images/*.jpg", "masks/*.png")
    (tmp_path / "classes.txt").write_text("sky\nsea\n")
    assert inspect(tmp_path).class_names == ("sky", "sea")


def test_what_stands_around_names():
    assert common_affix(["a1", "a2"], ["a1_mask", "a2_mask"]) == ("", "_mask")
    assert common_affix(["a1", "a2"], ["seg-a1", "seg-a2", "x"]) == ("seg-", "")
    assert common_affix(["a1"], ["b"]) is None
