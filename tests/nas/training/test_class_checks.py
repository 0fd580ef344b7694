"""Classes that make scores meaningless are refused before anything is trained, doubtful ones told."""

import dataclasses

import numpy as np
import pytest
import torch

import nas
from nas.data import SyntheticFaces
from nas.data.cache import ExamplesFile
from nas.data.classes import ClassCounts, SplitCounts
from nas.errors import DataError, InputError
from nas.tasks import Classification, Segmentation
from nas.training.class_checks import check_classes, split_counts

CONFIG = {
    "name": "faces",
    "data": {"kind": "synthetic_faces", "image_size": 32, "n_train": 8, "n_validation": 4},
    "search_space": {"kind": "segmentation_cell", "n_cells": 1, "n_branches": 1},
    "training": {"device": "cpu", "epochs": 1, "batch_size": 4},
    "objectives": [{"metric": "mean_iou"}, {"metric": "n_params"}],
    "controller": {"kind": "random", "n_candidates": 2, "batch_size": 2},
    "tensorboard": False,
}


JUDGED = ("mean_iou", "n_params")


def check(judged, setting, cache):
    """Return the messages but for the counts and the warning that four images are few."""
    messages = []
    check_classes(setting.task, split_counts(cache, setting), judged, messages.append)
    assert messages[0].startswith("Images that show each class, training / validation")
    assert messages[-1].startswith("The validation split has 4 images: the standard error of a mean IoU is about 0.075")
    return messages[1:-1]


@pytest.fixture
def setting_without(make_setting, tmp_path):
    """Return a function that makes a setting whose validation split shows nothing of some classes."""

    def make(*names, ignore_index=None):
        dataset = SyntheticFaces(image_size=32, n_train=8, n_validation=4)
        setting = make_setting(dataset, Segmentation(dataset.class_names, ignore_index))
        targets = setting.validation.load().targets.numpy().copy()
        targets[np.isin(targets, [dataset.class_names.index(name) for name in names])] = 0
        np.save(tmp_path / "targets.npy", targets)
        validation = ExamplesFile(setting.validation.images, tmp_path / "targets.npy")
        return dataclasses.replace(setting, validation=validation)

    return make


def test_metrics_of_classes_that_validation_does_not_show_are_refused_all_at_once(setting_without, cache):
    judged = ["iou[left_eye]", "n_params", "f1[skin]", "f1[mouth]"]
    with pytest.raises(
        InputError, match=r"got iou\[left_eye\], f1\[mouth\]: it shows nothing of left_eye, mouth that counts"
    ):
        check(judged, setting_without("mouth", "left_eye"), cache)


def test_other_absent_classes_are_told(setting_without, cache):
    assert check(JUDGED, setting_without("mouth"), cache) == [
        "The validation split shows nothing of mouth: no score tells how well networks know that."
    ]


def test_where_all_are_shown_nothing_is_told(setting_without, cache):
    assert check(JUDGED, setting_without(), cache) == []


def test_an_ignored_class_is_not_missed_but_cannot_be_an_objective(setting_without, cache):
    setting = setting_without(ignore_index=SyntheticFaces().class_names.index("mouth"))
    assert check(JUDGED, setting, cache) == []
    with pytest.raises(InputError, match="nothing of mouth that counts"):
        check(["iou[mouth]", "n_params"], setting, cache)


def test_a_search_is_refused_before_its_teacher_is_trained(tmp_path, monkeypatch):
    names = SyntheticFaces().class_names
    read = SyntheticFaces.read

    def read_without_mouth(self, split, rows):
        examples = read(self, split, rows)
        examples.targets[examples.targets == names.index("mouth")] = 0
        return examples

    monkeypatch.setattr(SyntheticFaces, "read", read_without_mouth)
    config = CONFIG | {
        "teacher": {"kind": "unet", "width": 4, "recipe": {"epochs": 1}},
        "objectives": [{"metric": "iou[mouth]"}, {"metric": "n_params"}],
    }
    with pytest.raises(InputError, match=r"got iou\[mouth\]"):
        nas.run_search(config, tmp_path / "run")
    assert not list((tmp_path / "artifacts").glob("teacher*"))


def masks(*values):
    """Return masks of 2 x 2, each half of the one value and half of the other."""
    return torch.tensor([[[a, a], [b, b]] for a, b in values], dtype=torch.uint8)


def told(train, validation, names, ignore_index=None, *, is_dense=True):
    """Return what is told of splits with these targets."""
    task = (Segmentation if is_dense else Classification)(names, ignore_index)
    counts = SplitCounts(*(ClassCounts.of([targets], len(names), ignore_index) for targets in (train, validation)))
    messages = []
    check_classes(task, counts, JUDGED, messages.append)
    return messages


def test_counts_of_masks():
    counts = ClassCounts.of([masks((0, 1), (0, 255)), masks((0, 0))], 3, 255)
    assert counts == ClassCounts(3, examples=(3, 1, 0), pixels=(8, 2, 0), n_ignored=2)
    assert (counts.absent, counts.share_ignored) == ({2}, 2 / 12)


def test_counts_of_labels():
    counts = ClassCounts.of([torch.tensor([0, 300, 300])], 301, None)
    assert (counts.examples[0], counts.examples[300], sum(counts.pixels), counts.n_examples) == (1, 2, 3, 3)


def test_the_counts_are_told():
    both = masks((0, 1), (0, 0))
    assert told(both, both[:1], ["sky", "car"])[0] == (
        "Images that show each class, training / validation, and its share of the training pixels: "
        "sky 2 / 1 (75.00%), car 1 / 1 (25.00%)."
    )
    labels = torch.arange(100) % 20
    line = told(labels, labels, [f"c{index}" for index in range(20)], is_dense=False)[0]
    assert line.startswith("Images of each class, training / validation (the 12 rarest of 20): c0 5 / 5, c1 5 / 5, ")


def test_one_class_beside_what_is_ignored_is_refused():
    only = masks((0, 255), (0, 0))
    with pytest.raises(DataError) as caught:
        told(only, only[:1], ["background", "cell"], ignore_index=255)
    assert str(caught.value).splitlines()[0] == (
        "data: the train split shows nothing but background: there is nothing to tell apart (25.0% of it is ignored: "
        "ignore_index 255); if 255 is a class, leave ignore_index out and write what each class's value is, "
        "`data: {mask_values: [0, 255]}` say"
    )


def test_a_validation_split_of_one_class_is_refused():
    with pytest.raises(DataError, match="the validation split shows nothing but dog: there is nothing to tell apart"):
        told(torch.tensor([0, 1]), torch.tensor([1, 1]), ["cat", "dog"], is_dense=False)


def test_a_class_that_only_validation_shows_is_told():
    messages = told(torch.tensor([0, 1]), torch.tensor([0, 1, 2] * 200), ["cat", "dog", "cow"], is_dense=False)
    assert messages[1:] == [
        "The training split shows nothing of cow, the validation split does: every network fails there."
    ]


def test_a_class_that_is_judged_must_be_trained():
    names = SyntheticFaces().class_names
    mouth = names.index("mouth")
    splits = (masks((0, 1)), masks((0, 1), (0, mouth)))
    counts = SplitCounts(*(ClassCounts.of([targets], len(names), None) for targets in splits))
    with pytest.raises(InputError, match=r"must be on classes that the train split shows, got iou\[mouth\]"):
        check_classes(Segmentation(names), counts, ["iou[mouth]"], lambda text: None)


def test_a_class_without_any_example_is_told():
    messages = told(torch.tensor([0, 1] * 200), torch.tensor([0, 1] * 200), ["cat", "dog", "cow"], is_dense=False)
    assert messages[1:] == ["No image of training or validation shows cow: networks never learn that."]


@pytest.mark.parametrize(("n", "is_told"), [(399, True), (400, False)])
def test_a_small_validation_split_is_told_with_its_standard_error(n, is_told):
    labels = torch.arange(n) % 2
    messages = told(labels, labels, ["cat", "dog"], is_dense=False)[1:]
    expected = (
        "The validation split has 399 images: the standard error of an accuracy of 0.8 is about 0.020, "
        "and differences of that size are luck. With 400 it would be 0.02."  # sqrt(0.8 x 0.2 / 400)
    )
    assert messages == ([expected] if is_told else [])
