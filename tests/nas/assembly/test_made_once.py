"""Components of a user's own work like built-in ones, and each component of a search is constructed once."""

import collections
import functools
import sys

import pytest

import nas
from latency.devices import FakeDevice
from nas.controllers import RandomSearch
from nas.data import SyntheticFaces
from nas.execution import SerialExecutor
from nas.tasks import Segmentation
from search_spaces.spaces.segmentation_cell import SegmentationCell

CONFIG = {
    "name": "small",
    "data": {"kind": "synthetic_faces", "image_size": 32, "n_train": 16, "n_validation": 8},
    "search_space": {"kind": "segmentation_cell", "n_cells": 1, "n_branches": 1},
    "training": {"epochs": 1, "batch_size": 8, "device": "cpu"},
    "devices": {"board": {"kind": "fake"}},
    "objectives": [{"metric": "mean_iou"}, {"metric": "latency_ms"}],
    "controller": {"kind": "random", "n_candidates": 2, "batch_size": 2},
    "execution": {"kind": "serial"},
    "tensorboard": False,
}

OWN = """
from torch import nn
from nas.execution import SerialExecutor
from nas.tasks import Segmentation

class Teacher(nn.Module):
    def __init__(self, in_channels, n_classes, *, seed: int = 0, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.ReLU(), nn.Conv2d(width, n_classes, 1))

    def forward(self, x):
        return self.layers(x)

class Task(Segmentation):
    kind = "mine"

class Executor(SerialExecutor):
    n_evaluated = 0

    def run(self, *arguments, **options):
        Executor.n_evaluated += 1
        return super().run(*arguments, **options)
"""


def test_each_component_is_constructed_once(tmp_path, monkeypatch):
    classes = (SegmentationCell, SyntheticFaces, Segmentation, FakeDevice, RandomSearch, SerialExecutor)
    n_made = collections.Counter()

    def counted(init, name):
        @functools.wraps(init)
        def wrapper(self, *args, **kwargs):
            n_made[name] += 1
            init(self, *args, **kwargs)

        return wrapper

    for cls in classes:
        monkeypatch.setattr(cls, "__init__", counted(cls.__init__, cls.__name__))
    run = nas.run_search(CONFIG, tmp_path / "run")
    assert run.counts() == {"complete": 2}
    assert n_made == {cls.__name__: 1 for cls in classes}


def test_a_task_an_executor_and_a_teacher_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {
        "task": {"kind": "own_parts:Task", "dice_weight": 0.5},
        "teacher": {"kind": "own_parts:Teacher", "width": 6, "recipe": {"epochs": 1, "batch_size": 8}},
        "execution": {"kind": "own_parts:Executor", "n_threads": 1},
    }
    try:
        run = nas.run_search(CONFIG | own, tmp_path / "run", trust_code=True)
        assert run.counts() == {"complete": 2}
        assert (run.teacher["kind"], run.teacher["n_params"]) == ("own_parts:Teacher", 3 * 6 + 6 + 6 * 8 + 8)
        again = nas.config.load_config(tmp_path / "run" / "config.yaml", trust_code=True)
        assert again == nas.config.load_config(CONFIG | own, trust_code=True)
        assert type(again.execution.instance).n_evaluated > 0
        with pytest.raises(nas.errors.InputError, match="task.dice_weight must be a finite number of at least 0"):
            nas.config.load_config(CONFIG | own, ["task.dice_weight=-1"], trust_code=True)
        with pytest.raises(nas.errors.InputError, match="task.kind: .* made for segmentation, not for classification"):
            nas.config.load_config(CONFIG | {"task": {"kind": "classification"}})
    finally:
        sys.modules.pop("own_parts", None)
