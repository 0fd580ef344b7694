import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data.files import (
    check_class_names,
    check_height_width,
    check_in_channels,
    choose_validation,
    expand_root,
    open_image,
    open_mask,
    root_or_default,
    to_array,
)
from nas.errors import DataError


def test_root_is_expanded(monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/data")
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_root("$SOME_FOLDER/camvid") == Path("/data/camvid")
    assert expand_root("~/camvid") == Path("/home/me/camvid")
    assert expand_root("camvid") == Path("camvid")


def test_an_unset_variable_in_the_root_is_named(monkeypatch):
    monkeypatch.delenv("SOME_FOLDER", raising=False)
    with pytest.raises(DataError, match=r"'\$SOME_FOLDER/x' names an environment variable that is not set"):
        expand_root("$SOME_FOLDER/x")


def test_default_root(monkeypatch):
    monkeypatch.setenv("NAS_DATA_ROOT", "/data")
    assert root_or_default(None, "fashion_mnist") == Path("/data/fashion_mnist")
    assert root_or_default("mine", "fashion_mnist") == Path("mine")
    monkeypatch.delenv("NAS_DATA_ROOT")
    with pytest.raises(DataError) as caught:
        root_or_default(None, "fashion_mnist")
    assert caught.value.faults == (
        "data.root is missing: give it, or set NAS_DATA_ROOT to the folder that holds fashion_mnist/",
    )


def test_validation_takes_its_share_of_each_class():
    labels = [0] * 20 + [1] * 50 + [2] * 2 + [3]
    chosen = choose_validation(labels, 0.1, seed=0)
    assert np.bincount(np.array(labels)[chosen], minlength=4).tolist() == [2, 5, 1, 0]
    assert np.array_equal(chosen, choose_validation(labels, 0.1, seed=0))
    assert not np.array_equal(chosen, choose_validation(labels, 0.1, seed=1))


def test_both_sides_of_a_class_keep_an_example():
    assert choose_validation([7, 7, 7], 0.99, seed=0).sum() == 2


def test_grey_and_colour_are_converted(tmp_path):
    Image.fromarray(np.full((2, 2, 4), [255, 0, 0, 7], dtype=np.uint8)).save(tmp_path / "rgba.png")
    image = open_image(tmp_path / "rgba.png")
    assert to_array(image, 3, (2, 2))[:, 0, 0].tolist() == [255, 0, 0]
    assert to_array(image, 1, (2, 2)).tolist() == [[[76, 76], [76, 76]]]  # 0.299 of red, ITU-R 601


def test_resizing_is_height_by_width():
    ramp = Image.fromarray(np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None], 4, axis=0))
    array = to_array(ramp, 1, (2, 8))
    assert array.shape == (1, 2, 8)
    assert (np.diff(array[0, 0].astype(int)) > 0).all()


def test_images_of_more_than_8_bits_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 1000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep.png: only images of 8 bits a channel are read, its mode is I;16"):
        open_image(tmp_path / "deep.png")


def test_a_palette_mask_holds_its_indices(tmp_path):
    mask = Image.fromarray(np.array([[0, 2], [1, 2]], dtype=np.uint8))
    mask.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    mask.save(tmp_path / "mask.png")
    opened = open_mask(tmp_path / "mask.png")
    assert opened.mode == "P"
    assert np.asarray(opened).tolist() == [[0, 2], [1, 2]]


def test_a_truncated_image_is_named(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: cannot be read as an image \(.+\)$"):
        open_image(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_height_width(0), "image_size must be a positive integer or [height, width], got 0"),
        (
            lambda: check_height_width((1, 2, 3)),
            "image_size must be a positive integer or [height, width], got (1, 2, 3)",
        ),
        (lambda: check_in_channels(4), "in_channels must be 1 (grey) or 3 (colour), got 4"),
        (
            lambda: check_class_names(["a", "a"]),
            "class_names must be 2 to 256 different names, got ['a', 'a']",
        ),
    ],
)
def test_options_are_checked(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message
