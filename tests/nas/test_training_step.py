"""The captured step, with a stand-in for CUDA that fails as CUDA does."""

import contextlib

import pytest
import torch
from torch import nn

from nas.data.base import Examples
from nas.normalization import Normalization
from nas.student import Student
from nas.tasks import Classification
from nas.training import TrainingRecipe, train
from nas.training_data import ImageData
from nas.training_step import EagerStep, GraphedStep

pytestmark = pytest.mark.trains

TASK = Classification(("dark", "bright"))


class Stream:
    def __init__(self, device=None):
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)


class Cuda:
    """What a captured step asks of `torch.cuda`, on the CPU; as torch, it stays on a capture that failed."""

    def __init__(self, monkeypatch, *, fails):
        self.fails = fails
        self.default = Stream()
        self.current = self.default
        self.modes = ["default"]
        for name in ("Stream", "current_stream", "stream", "graph", "get_sync_debug_mode", "set_sync_debug_mode"):
            monkeypatch.setattr(torch.cuda, name, Stream if name == "Stream" else getattr(self, name))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))

    def current_stream(self, device=None):
        return self.current

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph, *, stream, capture_error_mode):
        before, self.current = self.current, Stream()
        yield
        if self.fails:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        self.current = before

    def get_sync_debug_mode(self):
        return self.modes[-1]

    def set_sync_debug_mode(self, mode):
        self.modes.append(mode)


@pytest.fixture
def eager():
    """A step and a batch for it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 8, 8), generator=generator, dtype=torch.uint8)
    data = ImageData(Examples(images, torch.arange(8) % 2), Normalization.of(images))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 2))
    student = Student(model, data, 0.0, 0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2, fused=True)
    return EagerStep(student, optimizer, TASK, None), data.batch(torch.arange(8), 1, generator)


def state(step):
    return torch.cat([value.flatten().double() for value in step.student.state()])


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_capture_all_is_as_it_was(monkeypatch, eager, fails):
    step, batch = eager
    cuda, before, random = Cuda(monkeypatch, fails=fails), state(step).clone(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="operation failed") if fails else contextlib.nullcontext():
        GraphedStep(step, batch)
    assert cuda.current is cuda.default
    assert len(cuda.default.waited_for) == 1  # what is put back comes after what was run
    assert cuda.modes == ["default", "error", "default"]
    assert torch.equal(state(step), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(not value.any() for kept in step.optimizer.state.values() for value in kept.values())


def test_a_step_that_would_wait_is_found_before_the_capture(monkeypatch, eager):
    step, batch = eager
    cuda = Cuda(monkeypatch, fails=True)
    before = state(step).clone()

    def waits(module, inputs):
        if cuda.modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    step.student._model.register_forward_pre_hook(waits)
    with pytest.raises(RuntimeError, match="synchronizing"):
        GraphedStep(step, batch)
    assert cuda.modes == ["default", "error", "default"]
    assert torch.equal(state(step), before)


@pytest.mark.gpu
def test_after_a_capture_that_failed_training_goes_on_as_if_there_had_been_none(monkeypatch, caplog):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (256, 1, 8, 8), generator=generator, dtype=torch.uint8)
    where = ImageData(Examples(images, torch.arange(256) % 2), Normalization.of(images), device="cuda")

    class Waiting(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))

        def forward(self, x):
            return self.inner(x) * float(x.mean().item() > -9)

    states = []
    for way in ("found before", "fails in the capture", "operator by operator"):
        if way == "fails in the capture":
            monkeypatch.setattr("nas.training_step._no_waiting", contextlib.nullcontext)
        elif way == "operator by operator":
            monkeypatch.setattr("nas.training.fastest_step", lambda step, example, n_steps: step)
        model = Waiting()
        train(model, TrainingRecipe(epochs=4, batch_size=16), task=TASK, data=where, seed=0)
        states.append(torch.cat([value.flatten().double() for value in model.state_dict().values()]))
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert caplog.text.count("could not be captured") == 2
    for found in states[:2]:
        torch.testing.assert_close(found, states[2])
