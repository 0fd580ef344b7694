from pathlib import Path

import pytest

from nas.data.files import (
    check_class_names,
    check_height_width,
    check_in_channels,
    expand_root,
    root_or_default,
)
from nas.data.splits import SplitRule
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_height_width(0), "image_size must be a positive integer or [height, width], got 0"),
        (
            lambda: check_height_width((1, 2, 3)),
            "image_size must be a positive integer or [height, width], got (1, 2, 3)",
        ),
        (lambda: check_in_channels(4), "in_channels must be 1 (grey) or 3 (colour), got 4"),
        (lambda: SplitRule(1.0), "validation_fraction must lie between 0 and 1, got 1.0"),
        (lambda: SplitRule(seed=-1), "seed must be at least 0, got -1"),
        (
            lambda: SplitRule(0.5, 0.5),
            "test_fraction must leave something to train on, together with validation_fraction, got 0.5 and 0.5",
        ),
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
