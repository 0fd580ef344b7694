"""The captured step, with a stand-in for CUDA that fails as CUDA does."""

import contextlib

import pytest
import torch
from torch import nn

from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.tasks import Classification
from nas.training.batches import ImageData
from nas.training.engine import train
from nas.training.step import EagerStep, GraphedStep
from nas.training.student import Student
from nas.values.recipes import TrainingRecipe
from search_spaces.base import StagedNetwork

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


class Staged(StagedNetwork):
    """A network of one convolution with an auxiliary head that keeps statistics of batches."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 2)

    def encode(self, images):
        return (self.encoder(images),)

    def decode(self, features, size):
        return self.head(features[0].mean((2, 3)))

    def decode_with_auxiliary(self, features, size, heads):
        return self.decode(features, size), (heads(features[0]),)

    def new_auxiliary_heads(self, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def step_with_heads(device="cpu"):
    """A step whose auxiliary heads have batch statistics, and a batch for it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 8, 8), generator=generator, dtype=torch.uint8)
    data = ImageData(Examples(images, torch.arange(8) % 2), Normalization.of(images), device=device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = Student(Staged().to(device), data, 0.5, 0)
    options = {"capturable": True} if device == "cuda" else {}
    rate = torch.tensor(1e-2, device=device) if device == "cuda" else 1e-2
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, fused=True, **options)
    return EagerStep(student, optimizer, TASK, None), data.batch(torch.arange(8), 1, generator)


def test_a_capture_puts_back_the_batch_statistics_of_auxiliary_heads(monkeypatch):
    step, batch = step_with_heads()
    Cuda(monkeypatch, fails=False)
    before = {name: value.clone() for name, value in step.student._heads.state_dict().items()}
    assert before["0.num_batches_tracked"] == 0
    GraphedStep(step, batch)
    for name, value in step.student._heads.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.gpu
def test_a_captured_step_with_auxiliary_heads_goes_as_one_operator_by_operator():
    states = []
    for is_captured in (True, False):
        step, batch = step_with_heads("cuda")
        taken = GraphedStep(step, batch) if is_captured else step
        for _ in range(5):
            taken(batch)
        states.append(state(step))
    assert len(states[0]) > sum(p.numel() for p in step.student.parameters())
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-3)


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
            monkeypatch.setattr("nas.training.step.no_waiting", contextlib.nullcontext)
        elif way == "operator by operator":
            monkeypatch.setattr("nas.training.engine.fastest_step", lambda step, example, n_steps: step)
        model = Waiting()
        train(model, TrainingRecipe(epochs=4, batch_size=16), task=TASK, data=where, seed=0)
        states.append(torch.cat([value.flatten().double() for value in model.state_dict().values()]))
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert caplog.text.count("could not be captured") == 2
    for found in states[:2]:
        torch.testing.assert_close(found, states[2])
