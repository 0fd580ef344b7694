"""Decoded examples on disk: written part by part, refused where they do not fit."""

import errno
import logging
import os
import shutil

import numpy as np
import pytest
import torch

from nas.data import SyntheticFaces
from nas.data.base import Examples, IndexedDataset, Split, decoded_in_parts
from nas.data.cache import cache_examples, new_array, write_examples
from nas.data.normalization import Normalization
from nas.errors import DataError, InputError
from nas.training.batches import ImageData


class Counted(SyntheticFaces):
    """Keeps how many examples were read at once."""

    read_at_once: list[int]

    def read(self, split, rows):
        self.read_at_once.append(len(rows))
        return super().read(split, rows)

    def load(self, split):
        raise AssertionError("the whole split was read at once")


def faces(n=70):
    dataset = Counted(image_size=32, n_train=n, n_validation=4)
    dataset.read_at_once = []
    return dataset


def test_a_split_is_written_in_parts_once(cache, monkeypatch):
    monkeypatch.setattr("nas.data.cache._N_AT_A_TIME", 32)
    dataset = faces()
    files = cache_examples(cache, dataset, Split.TRAIN)
    assert dataset.read_at_once == [32, 32, 6]
    expected = SyntheticFaces(image_size=32, n_train=70, n_validation=4).load(Split.TRAIN)
    found = files.load()
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.targets, expected.targets)
    assert cache_examples(cache, dataset, Split.TRAIN) == files
    assert len(dataset.read_at_once) == 3


def test_half_of_a_pair_is_made_again(cache):
    dataset = faces(4)
    files = cache_examples(cache, dataset, Split.TRAIN)
    before = files.load().images.clone()
    files.images.unlink()
    assert torch.equal(cache_examples(cache, dataset, Split.TRAIN).load().images, before)


def test_an_indexed_data_set_reads_any_rows():
    dataset = SyntheticFaces(image_size=32, n_train=6, n_validation=4)
    assert isinstance(dataset, IndexedDataset)
    whole, some = dataset.load(Split.TRAIN), dataset.read(Split.TRAIN, [5, 0, 5])
    assert torch.equal(some.images, whole.images[[5, 0, 5]])
    assert torch.equal(some.targets, whole.targets[[5, 0, 5]])


def test_parts_name_all_that_is_broken_in_the_end():
    def read(rows):
        if rows.start in (2, 6):
            raise DataError([f"{rows.start} is broken"])
        return Examples(torch.zeros(len(rows), 1, 2, 2, dtype=torch.uint8), torch.zeros(len(rows), dtype=torch.int64))

    parts = decoded_in_parts(8, 2, read)
    assert len(next(parts)) == 2
    with pytest.raises(DataError) as caught:
        list(parts)
    assert caught.value.faults == ("2 is broken", "6 is broken")


def test_statistics_of_parts_are_those_of_all():
    images = torch.randint(0, 256, (10, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    parts = Normalization.of_parts([images[:3], images[3:4], images[4:]])
    assert parts == Normalization.of(images)
    expected = (images.double() / 255).mean(dim=(0, 2, 3)).tolist()
    assert parts.mean == pytest.approx(expected)


def usage(free):
    return lambda path: shutil._ntuple_diskusage(free, 0, free)


def test_what_the_disk_has_no_place_for_is_refused_before_a_byte_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("nas.data.cache.shutil.disk_usage", usage(1_500_000_000))
    with pytest.raises(InputError, match=r"images-1 takes 2\.0 GB, the disk has 1\.5 GB free; free some, or name a"):
        new_array(tmp_path / ".images-1.npy", np.uint8, (2_000, 1_000_000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="places cannot be taken before they are written to here")
def test_a_place_that_another_file_took_meanwhile_is_missed_at_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match="images takes"):
        new_array(tmp_path / "images.npy", np.uint8, (10, 10))


def test_large_files_are_announced(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("nas.data.cache._LARGE_BYTES", 1000)
    monkeypatch.setattr("nas.data.cache.shutil.disk_usage", usage(10**12))
    with caplog.at_level(logging.WARNING):
        new_array(tmp_path / "small.npy", np.uint8, (999,))
        assert caplog.text == ""
        new_array(tmp_path / "large.npy", np.float16, (500,))
    assert "writing 0.0 GB, of 1000.0 GB that are free" in caplog.text


def test_an_array_is_whole_after_its_parts(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 1, 3, 3), generator=generator).to(torch.uint8)
    parts = [Examples(images[:2], torch.arange(2)), Examples(images[2:], torch.arange(2, 5))]
    write_examples(tmp_path / "i.npy", tmp_path / "t.npy", 5, parts)
    assert np.array_equal(np.load(tmp_path / "i.npy"), images)
    assert np.load(tmp_path / "t.npy").tolist() == [0, 1, 2, 3, 4]


def test_several_examples_are_trained_on_as_one():
    dataset = SyntheticFaces(image_size=32, n_train=7, n_validation=4)
    train, validation = dataset.load(Split.TRAIN), dataset.load(Split.VALIDATION)
    together = Examples(torch.cat([train.images, validation.images]), torch.cat([train.targets, validation.targets]))
    said = np.random.default_rng(0).random((11, 8, 32, 32)).astype(np.float16)
    normalization = Normalization.of(together.images)
    apart = ImageData([train, validation], normalization, [said[:7], said[7:]])
    one = ImageData(together, normalization, said)
    rows = torch.tensor([10, 0, 6, 7, 3, 10])
    assert len(apart) == len(one) == 11
    found, expected = (data.batch(rows, 1, torch.Generator()) for data in (apart, one))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
