"""Image and mask folders, class folders and Parquet files: what is theirs alone, and their faults."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from nas.data import ImageFolder, ImageMaskFolder, ParquetImages, Split
from nas.errors import DataError


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def save_pair(folder: Path, name: str, mask: np.ndarray, grey: int = 0) -> None:
    save(folder / "images" / f"{name}.png", np.full((*mask.shape, 3), grey))
    save(folder / "masks" / f"{name}.png", mask)


def masks_of(root: Path, **options) -> ImageMaskFolder:
    return ImageMaskFolder(root, **({"class_names": ["a", "b"], "image_size": 4} | options))


def test_masks_are_resized_by_the_nearest_pixel(tmp_path):
    mask = np.zeros((8, 8))
    mask[:, 4:] = 1
    for name in "xy":
        save_pair(tmp_path / "train", name, mask)
    target = masks_of(tmp_path, image_size=(2, 4)).load(Split.TRAIN).targets[0]
    assert target.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("folder", ["val", "validation"])
def test_a_validation_folder_is_used_whole(tmp_path, folder):
    save_pair(tmp_path / "train", "x", np.zeros((4, 4)), grey=1)
    save_pair(tmp_path / folder, "x", np.ones((4, 4)), grey=2)
    data = masks_of(tmp_path)
    assert data.load(Split.TRAIN).images.unique().tolist() == [1]
    assert data.load(Split.VALIDATION).images.unique().tolist() == [2]


def test_all_broken_pairs_are_named_at_once(tmp_path):
    train = tmp_path / "train"
    save_pair(train, "good", np.zeros((4, 4)))
    save_pair(train, "label", np.array([[0, 1], [2, 9]]))
    save_pair(train, "size", np.zeros((4, 4)))
    save(train / "images" / "size.png", np.zeros((5, 4, 3)))
    save_pair(train, "unreadable", np.zeros((4, 4)))
    (train / "images" / "unreadable.png").write_bytes(b"no image")
    save_pair(train, "colour", np.zeros((4, 4)))
    save(train / "masks" / "colour.png", np.array([[[0, 0, 0], [9, 0, 0]]] * 2))
    save(train / "images" / "alone.png", np.zeros((4, 4, 3)))
    expected = {
        f"{train}/images/alone.png: has no mask {train}/masks/alone.png",
        f"{train}/masks/label.png: holds the value 2, must hold 0 .. 1 or 255",
        f"{train}/masks/label.png: holds the value 9, must hold 0 .. 1 or 255",
        f"{train}/masks/size.png: is 4 x 4 pixels, its image is 4 x 5 pixels",
        f"{train}/images/unreadable.png: cannot be read as an image (not an image)",
        f"{train}/masks/colour.png: holds colours ([0, 0, 0], [9, 0, 0]), must hold class indices",
    }
    with pytest.raises(DataError) as caught:
        masks_of(tmp_path, ignore_index=255).check()
    assert set(caught.value.faults) == expected
    assert len(caught.value.faults) == len(expected)


def test_loading_names_all_broken_pairs_too(tmp_path):
    save_pair(tmp_path / "train", "x", np.zeros((4, 4)))
    for name in "yz":
        save_pair(tmp_path / "val", name, np.full((4, 4), 2))
    with pytest.raises(DataError) as caught:
        masks_of(tmp_path).load(Split.VALIDATION)
    assert caught.value.faults == tuple(
        f"{tmp_path}/val/masks/{name}.png: holds the value 2, must hold 0 .. 1" for name in "yz"
    )


def test_images_and_masks_without_a_partner_are_named(tmp_path):
    for split, name in (("train", "x"), ("val", "y")):
        save_pair(tmp_path / split, "both", np.zeros((4, 4)))
        save(tmp_path / split / "images" / f"{name}.jpg", np.zeros((4, 4, 3)))
    save(tmp_path / "train" / "masks" / "z.png", np.zeros((4, 4)))
    with pytest.raises(DataError) as caught:
        masks_of(tmp_path).check()
    assert caught.value.faults == (
        f"{tmp_path}/train/images/x.jpg: has no mask {tmp_path}/train/masks/x.png",
        f"{tmp_path}/train/masks/z.png: has no image",
        f"{tmp_path}/val/images/y.jpg: has no mask {tmp_path}/val/masks/y.png",
    )


def test_accents_that_are_written_apart_make_no_other_name(tmp_path):
    save_pair(tmp_path / "train", "x", np.zeros((4, 4)))
    save(tmp_path / "train" / "images" / "\u00e9.png", np.zeros((4, 4, 3)))
    save(tmp_path / "train" / "masks" / "e\u0301.png", np.zeros((4, 4)))
    assert len(masks_of(tmp_path).load(Split.TRAIN)) == 1


def test_the_near_file_is_named(tmp_path):
    save_pair(tmp_path / "train", "x", np.zeros((4, 4)))
    save(tmp_path / "train" / "images" / "photo.png", np.zeros((4, 4, 3)))
    save(tmp_path / "train" / "masks" / "Photo.png", np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"photo.png: has no mask \S+/train/masks/photo.png, near it is Photo.png"):
        masks_of(tmp_path).check()


def test_an_image_that_is_there_twice(tmp_path):
    save_pair(tmp_path / "train", "x", np.zeros((4, 4)))
    save(tmp_path / "train" / "images" / "x.jpg", np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match=r"x.png: has the same name as x.jpg"):
        masks_of(tmp_path).check()


def test_one_image_cannot_be_split(tmp_path):
    save_pair(tmp_path / "train", "x", np.zeros((4, 4)))
    with pytest.raises(DataError, match="train: must hold 2 images or more, one of them for validation"):
        masks_of(tmp_path).check()


def test_ignore_index_is_no_class():
    with pytest.raises(ValueError, match=r"^ignore_index must be 2 .. 255, since 0 .. 1 are classes, got 1$"):
        masks_of(Path(), ignore_index=1)


def class_folder(root: Path, split: str, **numbers: int) -> None:
    for name, n in numbers.items():
        for index in range(n):
            save(root / split / name / f"{index}.png", np.full((4, 4, 3), index))


def test_classes_are_the_sorted_folders_and_split_evenly(tmp_path):
    class_folder(tmp_path, "train", dog=20, cat=40)
    (tmp_path / "train" / ".hidden").mkdir()
    data = ImageFolder(tmp_path, image_size=4)
    assert data.class_names == ("cat", "dog")
    assert data.load(Split.TRAIN).targets.bincount().tolist() == [36, 18]
    assert data.load(Split.VALIDATION).targets.bincount().tolist() == [4, 2]


def test_class_folder_faults_are_named_at_once(tmp_path):
    class_folder(tmp_path, "train", dog=2, cat=2)
    (tmp_path / "train" / "cow").mkdir()
    class_folder(tmp_path, "val", dog=1, horse=1)
    with pytest.raises(DataError) as caught:
        ImageFolder(tmp_path, image_size=4).check()
    assert caught.value.faults == (
        f"{tmp_path}/val/horse: is no class: train/horse is missing",
        f"{tmp_path}/train/cow: holds no images",
    )


def test_unreadable_images_are_named_at_once(tmp_path):
    class_folder(tmp_path, "train", dog=2, cat=3)
    broken = [tmp_path / "train" / "cat" / "1.png", tmp_path / "train" / "dog" / "0.png"]
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        ImageFolder(tmp_path, image_size=4).check()
    assert sorted(fault.split(":")[0] for fault in caught.value.faults) == [str(path) for path in broken]


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2, 3), grey, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(path: Path, images: list[object], labels: list[object], names: list[str] | None = None) -> None:
    table = pyarrow.table({"img": images, "label": labels})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"bytes": data, "path": "x.png"}])
def test_images_are_bytes_or_structures(tmp_path, wrap):
    write_table(tmp_path / "train-0.parquet", [wrap(png(grey)) for grey in range(4)], [0, 0, 1, 1])
    data = ParquetImages(tmp_path, image_size=2, in_channels=1)
    assert data.class_names == ("0", "1")
    greys = [data.load(split).images[:, 0, 0, 0].tolist() for split in (Split.TRAIN, Split.VALIDATION)]
    assert sorted(greys[0] + greys[1]) == [0, 1, 2, 3]
    assert [len(values) for values in greys] == [2, 2]


def test_class_names_come_from_the_metadata_unless_given(tmp_path):
    write_table(tmp_path / "train-0.parquet", [png(0)] * 3, [0, 0, 1], names=["cat", "dog", "cow"])
    assert ParquetImages(tmp_path, image_size=2).class_names == ("cat", "dog", "cow")
    assert ParquetImages(tmp_path, image_size=2, class_names=["x", "y"]).class_names == ("x", "y")


def test_files_are_read_in_the_order_of_their_names(tmp_path):
    for shard in (1, 0):
        write_table(tmp_path / f"test-{shard}.parquet", [png(shard)] * 2, [shard, shard])
    data = ParquetImages(tmp_path, image_size=2, class_names=["a", "b"])
    assert data.load(Split.TEST).targets.tolist() == [0, 0, 1, 1]


def test_parquet_faults_are_named_at_once(tmp_path):
    write_table(tmp_path / "train-0.parquet", [png(0)] * 3, [0, 1, 5])
    pyarrow.parquet.write_table(pyarrow.table({"image": [png(0)]}), tmp_path / "train-1.parquet")
    write_table(tmp_path / "train-2.parquet", ["text"], [None])
    (tmp_path / "train-3.parquet").write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        ParquetImages(tmp_path, image_size=2, class_names=["a", "b"]).check()
    faults = [fault.removeprefix(f"{tmp_path}/") for fault in caught.value.faults]
    assert faults[:5] == [
        "train-0.parquet: labels must be 0 .. 1, 1 row holds 5",
        "train-1.parquet: column 'label' is missing, there are image",
        "train-1.parquet: column 'img' is missing, there are image",
        "train-2.parquet: column 'label' lacks the label of 1 rows",
        "train-2.parquet: column 'img' must hold encoded images as bytes, or a structure with them, holds string",
    ]
    assert all(fault.startswith("train-3.parquet: cannot be read as a Parquet file") for fault in faults[5:])


def test_broken_images_are_named_by_row(tmp_path):
    write_table(tmp_path / "train-0.parquet", [png(0), b"broken", png(0), None], [0, 0, 1, 1])
    with pytest.raises(DataError) as caught:
        ParquetImages(tmp_path, image_size=2).check()
    assert caught.value.faults == (
        f"{tmp_path}/train-0.parquet: row 1: image: cannot be read as an image (not an image)",
        f"{tmp_path}/train-0.parquet: row 3: has no image",
    )


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write_table(tmp_path / "train-0.parquet", [png(0)] * 2, [0, 1])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r'pip install "pareto-nas\[parquet\]"'):
        ParquetImages(tmp_path, image_size=2).check()


@pytest.mark.realdata
@pytest.mark.skipif("NAS_DATA_ROOT" not in os.environ, reason="NAS_DATA_ROOT is not set")
def test_camvid_holds_its_published_numbers_of_pairs():
    names = [str(index) for index in range(11)]
    data = ImageMaskFolder("$NAS_DATA_ROOT/camvid", class_names=names, image_size=(45, 60), ignore_index=11)
    assert [len(data.load(split)) for split in Split] == [367, 101, 233]
