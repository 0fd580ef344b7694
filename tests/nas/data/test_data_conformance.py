"""Every entry of DATASETS, with small data in its own layout, keeps the contract of `Dataset`."""

import gzip
import io
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from nas.data import DATASETS, Dataset, Split
from nas.errors import DataError


def image_bytes(rng: np.random.Generator, height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def fashion_mnist(root: Path, rng: np.random.Generator) -> dict[str, object]:
    for name, n in (("train", 40), ("t10k", 12)):
        write_idx(root / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(root / f"{name}-labels-idx1-ubyte.gz", rng.integers(0, 10, n, dtype=np.uint8))
    return {"root": root, "n_validation": 10}


def image_mask_folder(root: Path, rng: np.random.Generator) -> dict[str, object]:
    for split, n in (("train", 12), ("test", 4)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(n):
            (root / split / "images" / f"{index}.png").write_bytes(image_bytes(rng, 20, 24))
            mask = rng.choice(np.array([0, 1, 2, 255], dtype=np.uint8), (20, 24))
            Image.fromarray(mask).save(root / split / "masks" / f"{index}.png")
    return {"root": root, "class_names": ["a", "b", "c"], "image_size": [16, 12], "ignore_index": 255}


def image_folder(root: Path, rng: np.random.Generator) -> dict[str, object]:
    for split, n in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(n):
                (root / split / name / f"{index}.png").write_bytes(image_bytes(rng, 20, 24))
    return {"root": root, "image_size": 16}


def parquet(root: Path, rng: np.random.Generator) -> dict[str, object]:
    for split, n in (("train", 12), ("test", 6)):
        images = [{"bytes": image_bytes(rng, 8, 8), "path": None} for _ in range(n)]
        table = pyarrow.table({"img": images, "label": [index % 3 for index in range(n)]})
        pyarrow.parquet.write_table(table, root / f"{split}-00000-of-00001.parquet")
    return {"root": root, "image_size": 8}


LAYOUTS: dict[str, Callable[[Path, np.random.Generator], dict[str, object]]] = {
    "synthetic_faces": lambda root, rng: {"image_size": 32, "n_train": 6, "n_validation": 3, "n_test": 3},
    "fashion_mnist": fashion_mnist,
    "image_mask_folder": image_mask_folder,
    "image_folder": image_folder,
    "parquet": parquet,
}
WITH_FILES = [kind for kind in LAYOUTS if kind != "synthetic_faces"]


def test_every_entry_is_tested():
    assert LAYOUTS.keys() == DATASETS.keys()


def write(kind: str, root: Path, seed: int = 0) -> dict[str, object]:
    root.mkdir()
    return LAYOUTS[kind](root, np.random.default_rng(seed))


def create(kind: str, root: Path, seed: int = 0) -> Dataset:
    return DATASETS[kind](**write(kind, root, seed))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_examples_have_the_promised_form(kind, tmp_path):
    data = create(kind, tmp_path / "data")
    data.check()
    for split in Split:
        examples = data.load(split)
        n = len(examples)
        assert n > 0
        assert examples.images.dtype == torch.uint8
        assert examples.images.shape == (n, data.in_channels, *data.image_size)
        assert examples.images.is_contiguous()
        assert examples.targets.dtype == (torch.uint8 if data.is_dense else torch.int64)
        assert examples.targets.shape == ((n, *data.image_size) if data.is_dense else (n,))
        labels = set(examples.targets.unique().tolist()) - {data.ignore_index}
        assert labels <= set(range(len(data.class_names)))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_loading_is_deterministic(kind, tmp_path):
    options = write(kind, tmp_path / "data")
    first, second = (DATASETS[kind](**options) for _ in range(2))
    for split in Split:
        loaded = [first.load(split), first.load(split), second.load(split)]
        assert all(torch.equal(examples.images, loaded[0].images) for examples in loaded)
        assert all(torch.equal(examples.targets, loaded[0].targets) for examples in loaded)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_parts_are_the_split(kind, tmp_path):
    dataset = create(kind, tmp_path / "data")
    for split in Split:
        whole = dataset.load(split)
        n, iterator = dataset.parts(split, 3)
        parts = list(iterator)
        assert (n, {len(part) for part in parts[:-1]}) == (len(whole), {3} if n > 3 else set())
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


def test_parts_of_pairs_without_partners_name_each_once(tmp_path):
    data = create("image_mask_folder", tmp_path / "data")
    images, masks = (tmp_path / "data" / "test" / name for name in ("images", "masks"))
    (masks / "0.png").unlink()
    with pytest.raises(DataError, match="has no mask") as caught:
        list(data.parts(Split.TEST, 1)[1])
    assert len(caught.value.faults) == 1
    shutil.rmtree(images)
    with pytest.raises(DataError, match="images: folder is missing"):
        list(data.parts(Split.TEST, 1)[1])


@pytest.mark.parametrize("kind", LAYOUTS)
def test_no_image_is_in_two_splits(kind, tmp_path):
    data = create(kind, tmp_path / "data")
    images = [image.numpy().tobytes() for split in Split for image in data.load(split).images]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_fingerprint_is_stable_and_sensitive(kind, tmp_path):
    options = write(kind, tmp_path / "data")
    fingerprint = DATASETS[kind](**options).fingerprint()
    assert set(fingerprint) <= set("0123456789abcdef")
    assert DATASETS[kind](**options).fingerprint() == fingerprint
    assert len({DATASETS[kind](**options, seed=seed).fingerprint() for seed in range(4)}) > 1
    if kind in WITH_FILES:
        moved = create(kind, tmp_path / "moved")
        other = create(kind, tmp_path / "other", seed=1)
        assert moved.fingerprint() == fingerprint
        assert other.fingerprint() != fingerprint


@pytest.mark.parametrize("kind", WITH_FILES)
@pytest.mark.parametrize("harm", ["corrupt", "delete"])
def test_the_test_split_is_read_only_when_loaded(kind, harm, tmp_path):
    root = tmp_path / "data"
    options = write(kind, root)
    fingerprint = DATASETS[kind](**options).fingerprint()
    damage_test_split(root, harm)
    data = DATASETS[kind](**options)
    data.check()
    assert len(data.load(Split.TRAIN)) > 0
    assert len(data.load(Split.VALIDATION)) > 0
    assert len(data.class_names) >= 2
    assert data.fingerprint() == fingerprint
    with pytest.raises(DataError):
        data.load(Split.TEST)


def damage_test_split(root: Path, harm: str) -> None:
    for path in [*root.glob("t10k-*"), *root.glob("test*")]:
        if harm == "delete":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for file in [path] if path.is_file() else path.rglob("*.*"):
            file.write_bytes(b"broken")


@pytest.mark.parametrize("kind", WITH_FILES)
def test_a_missing_folder_is_a_data_error(kind, tmp_path):
    options = write(kind, tmp_path / "data") | {"root": tmp_path / "elsewhere"}
    data = DATASETS[kind](**options)
    for read in (data.check, data.fingerprint, lambda: data.load(Split.TRAIN), lambda: data.load(Split.TEST)):
        with pytest.raises(DataError, match="elsewhere"):
            read()


@pytest.mark.parametrize("kind", WITH_FILES)
def test_constructors_read_no_files(kind, tmp_path):
    options = write(kind, tmp_path / "data")
    DATASETS[kind](**(options | {"root": tmp_path / "elsewhere"}))
