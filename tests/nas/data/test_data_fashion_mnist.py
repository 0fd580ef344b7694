import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.data.base import Split
from nas.data.fashion_mnist import FashionMnist, read_idx
from nas.errors import DataError


def write_idx(path: Path, values: np.ndarray, magic: bytes | None = None) -> None:
    header = magic or bytes([0, 0, 8, values.ndim])
    sizes = b"".join(side.to_bytes(4, "big") for side in values.shape)
    path.write_bytes(gzip.compress(header + sizes + values.tobytes()))


@pytest.fixture
def root(tmp_path):
    images = np.repeat(np.arange(50, dtype=np.uint8), 784).reshape(50, 28, 28)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(50, dtype=np.uint8) % 10)
    return tmp_path


def numbers(data: FashionMnist, split: Split) -> list[int]:
    return data.load(split).images[:, 0, 0, 0].tolist()


def test_images_keep_their_labels_and_split_once(root):
    data = FashionMnist(root, n_validation=20)
    train, validation = data.load(Split.TRAIN), data.load(Split.VALIDATION)
    for examples in (train, validation):
        assert torch.equal(examples.images[:, 0, 5, 5] % 10, examples.targets.to(torch.uint8))
    assert sorted(numbers(data, Split.TRAIN) + numbers(data, Split.VALIDATION)) == list(range(50))
    assert len(validation) == 20


def test_a_cut_of_the_training_images_leaves_validation_as_it_was(root):
    whole, cut = FashionMnist(root, n_validation=20), FashionMnist(root, n_validation=20, n_train=7)
    assert numbers(cut, Split.VALIDATION) == numbers(whole, Split.VALIDATION)
    assert len(numbers(cut, Split.TRAIN)) == 7
    assert set(numbers(cut, Split.TRAIN)) <= set(numbers(whole, Split.TRAIN))


def test_seed_chooses_the_validation_images(root):
    first, second = (numbers(FashionMnist(root, 20, seed=seed), Split.VALIDATION) for seed in (0, 1))
    assert first != second


def test_more_images_than_there_are(root):
    with pytest.raises(DataError, match="51 training and validation images are asked for, the files hold 50"):
        FashionMnist(root, n_validation=40, n_train=11).check()


def test_all_missing_files_are_named_with_what_to_do(tmp_path):
    with pytest.raises(DataError) as caught:
        FashionMnist(tmp_path).check()
    assert [fault.split(";")[0] for fault in caught.value.faults] == [
        f"{tmp_path}/train-images-idx3-ubyte.gz: file is missing",
        f"{tmp_path}/train-labels-idx1-ubyte.gz: file is missing",
    ]
    assert "get the file from https://" in caught.value.faults[0]


def test_a_label_out_of_range_and_a_wrong_number_are_named(root):
    path = root / "train-labels-idx1-ubyte.gz"
    write_idx(path, np.full(49, 10, dtype=np.uint8))
    with pytest.raises(DataError) as caught:
        FashionMnist(root).check()
    assert caught.value.faults == (
        f"{path}: holds the label 10, must be 0 .. 9",
        f"{path}: holds 49 labels for 50 images",
    )


def test_idx_faults(tmp_path):
    path = tmp_path / "x.gz"
    write_idx(path, np.zeros((2, 3), np.uint8), magic=b"\0\0\x0b\2")
    with pytest.raises(DataError, match=r"x.gz: must start with 00000802 \(IDX\), got 00000b02"):
        read_idx(path, (3,))
    write_idx(path, np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"must hold items of shape \(4,\), got \(3,\)"):
        read_idx(path, (4,))
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 5, 1, 2])))
    with pytest.raises(DataError, match="says 5 items of 1 bytes, holds 2 bytes"):
        read_idx(path, ())
    path.write_bytes(gzip.compress(bytes([0, 0, 8])))
    with pytest.raises(DataError, match="must start with"):
        read_idx(path, ())
    write_idx(path, np.zeros((2, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_idx(path, (3,))
    path.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_idx(path, (3,))


def test_default_root_needs_the_variable(monkeypatch):
    monkeypatch.delenv("NAS_DATA_ROOT", raising=False)
    with pytest.raises(DataError, match="set NAS_DATA_ROOT"):
        FashionMnist().check()


@pytest.mark.parametrize("name", ["n_validation", "n_train"])
def test_options_are_checked(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
        FashionMnist(**{name: 0})


@pytest.mark.realdata
@pytest.mark.skipif("NAS_DATA_ROOT" not in os.environ, reason="NAS_DATA_ROOT is not set")
def test_the_real_files_hold_6000_training_images_of_each_class():
    data = FashionMnist()
    labels = torch.cat([data.load(split).targets for split in (Split.TRAIN, Split.VALIDATION)])
    assert labels.bincount().tolist() == [6000] * 10
