"""What would spoil every score of a run is found before anything is trained."""

from contextlib import nullcontext

import pytest
import torch

import nas
from nas.assembly.training import check_batches, check_teacher_file
from nas.config import load_config
from nas.data import SyntheticFaces
from nas.errors import InputError
from nas.search.listener import SearchListener
from nas.tasks import Segmentation
from search_spaces import SegmentationCell

CONFIG = {
    "name": "faces",
    "data": {"kind": "synthetic_faces", "image_size": 32, "n_train": 8, "n_validation": 4},
    "search_space": {"kind": "segmentation_cell", "n_cells": 1, "n_branches": 1},
    "training": {"device": "cpu", "epochs": 1, "batch_size": 4},
    "objectives": [{"metric": "mean_iou"}, {"metric": "n_params"}],
    "controller": {"kind": "random", "n_candidates": 2, "batch_size": 2},
    "tensorboard": False,
}


class Messages(SearchListener):
    def __init__(self):
        self.texts = []

    def on_message(self, text):
        self.texts.append(text)


@pytest.mark.parametrize(
    ("teacher", "key"),
    [({"kind": "onnx", "path": "gone.onnx"}, "path"), ({"kind": "unet", "weights": "gone.st"}, "weights")],
)
def test_a_teacher_whose_file_is_gone_is_refused_before_the_data_is_read(tmp_path, monkeypatch, teacher, key):
    monkeypatch.setattr(SyntheticFaces, "load", lambda self, split: pytest.fail("read in vain"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=rf"teacher\.{key} must be a file, got gone\.\w+: there is none at {tmp_path}/gone"
    ):
        nas.run_search(CONFIG | {"teacher": teacher}, tmp_path / "run")
    check_teacher_file(load_config(CONFIG | {"teacher": teacher, "distillation": {"enabled": False}}))


SPACE = SegmentationCell(n_cells=1, n_branches=1)
ONE = {"device": "cpu", "epochs": 1, "batch_size": 1}


def small_faces(size, **sections):
    data = {"kind": "synthetic_faces", "image_size": size, "n_train": 2, "n_validation": 2}
    return load_config(CONFIG | {"data": data} | sections)


@pytest.fixture
def faces(make_setting):
    """Return a function that makes a setting of faces of a size."""

    def make(size):
        dataset = SyntheticFaces(image_size=size, n_train=2, n_validation=2)
        return make_setting(dataset, Segmentation(dataset.class_names))

    return make


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"training": ONE}, "training"),
        ({"pretraining": {"epochs": 1, "batch_size": 1}}, "pretraining"),
        ({"teacher": {"kind": "deeplabv3_mobilenetv3", "recipe": {"batch_size": 1}}}, r"teacher\.recipe"),
        ({"training": ONE, "references": ["deeplabv3_mobilenetv3"]}, "training"),
    ],
)
def test_one_image_of_one_pixel_is_no_batch_to_normalise_by(faces, sections, key):
    with pytest.raises(InputError, match=rf"^{key}\.batch_size must be at least 2 for images of 32 x 32, got 1"):
        check_batches(small_faces(32, **sections), faces(32))


def test_one_image_of_more_pixels_is(faces):
    config = small_faces(
        64,
        training=ONE,
        pretraining={"batch_size": 1},
        teacher={"kind": "unet", "width": 4, "recipe": {"batch_size": 1}},
    )
    check_batches(config, faces(64))
    given = {"kind": "deeplabv3_mobilenetv3", "weights": "mine.safetensors"}
    check_batches(small_faces(32, teacher=given), faces(32))


@pytest.mark.parametrize("size", [32, 64])
def test_what_is_refused_is_what_would_fail(faces, size):
    model = SPACE.build_for_pretraining(in_channels=3, n_classes=8, seed=0).train()
    fails = size == 32
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") if fails else nullcontext():
        model(torch.zeros(1, 3, size, size))
