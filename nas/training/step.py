"""One step of a training: forward, backward, update. On a GPU it is captured once and replayed."""

import logging
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn

from nas.tasks.base import Task
from nas.torch_tools import no_waiting
from nas.training.batches import Batch
from nas.training.distillation import Distillation
from nas.training.layout import GradientGuard
from nas.training.processes import ALONE, Processes
from nas.training.student import Student

_N_WARM_UP = 3  # runs before a capture: what libraries set up at first use must not be captured
_log = logging.getLogger(__name__)


class Step(Protocol):
    """Takes a student one batch further."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Return `(2,)`, detached: the task's loss and the distillation term, before the update."""


class EagerStep:
    """A step that runs operator by operator.

    Args:
        student: What is trained.
        optimizer: Of its parameters.
        task: Gives the loss.
        distillation: How to learn from the teacher; `None` for not at all.
        teacher: Asked about each batch, in eval mode; `None` where batches hold what it says.
        scaler: Keeps gradients of low precision from vanishing; `None` where they need no help.
        processes: Those that take the same step along the mean of their gradients.
    """

    def __init__(
        self,
        student: Student,
        optimizer: torch.optim.Optimizer,
        task: Task,
        distillation: Distillation | None,
        teacher: nn.Module | None = None,
        scaler: torch.amp.GradScaler | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.student = student
        self.optimizer = optimizer
        self.scaler = scaler
        self._task = task
        self._distillation = distillation
        self._teacher = teacher
        self._guard = GradientGuard(student.modules())
        self.processes = processes

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Return the losses before the update."""
        losses = self.student.losses(self._taught(batch), self._task, self._distillation)
        self.optimizer.zero_grad(set_to_none=True)
        loss = losses.sum() if self.scaler is None else self.scaler.scale(losses.sum())
        with self._guard.backward_pass():
            loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average([p.grad for p in self.student.parameters() if p.grad is not None])
        if self.scaler is None:
            self.optimizer.step()
        else:  # a fused optimiser skips the step on the device where a gradient overflowed: nothing waits
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return losses.detach()

    def _taught(self, batch: Batch) -> Batch:
        """Return the batch with what the teacher says of it."""
        if self._teacher is None or not isinstance(batch.inputs, torch.Tensor):
            return batch
        with torch.no_grad(), self.student.autocast():
            return batch._replace(teacher_logits=self._teacher(batch.inputs).float())


class GraphedStep:
    """A step captured as a CUDA graph: small networks spend most of a step on launching kernels one by one.

    Capturing needs some runs of the step. What they change (weights, batch statistics, the optimiser's state, random
    numbers) is put back, so that a training goes as it does operator by operator.

    Args:
        step: Whose optimiser is `capturable`, with its learning rate in a tensor.
        example: A batch; all others must have its shapes and types.

    Raises:
        RuntimeError: If the step cannot be captured, because it waits for the device, say. The student is then as it
            was before.
    """

    def __init__(self, step: EagerStep, example: Batch) -> None:
        inputs = example.inputs
        self._batch = Batch(
            torch.empty_like(inputs) if isinstance(inputs, torch.Tensor) else tuple(map(torch.empty_like, inputs)),
            torch.empty_like(example.targets),
            None if example.teacher_logits is None else torch.empty_like(example.teacher_logits),
        )
        self._graph = torch.cuda.CUDAGraph()
        device = example.targets.device
        before = _Snapshot(step, device)
        current = torch.cuda.current_stream(device)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        try:
            # torch leaves a capture's stream only if the capture came to its end; this block leaves it always.
            with torch.cuda.stream(stream):
                self._set(example)
                for _ in range(_N_WARM_UP):
                    step(self._batch)
                with no_waiting():  # found only in the capture, a wait would leave CUDA's random state behind in it
                    step(self._batch)
                step.optimizer.zero_grad(set_to_none=True)  # gradients come to lie in the graph's own memory
                # The thread that fetches batches meanwhile may allocate memory.
                with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                    self._losses = step(self._batch)
        finally:
            current.wait_stream(stream)
            before.restore()

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Return the losses before the update; the next call overwrites them."""
        self._set(batch)
        self._graph.replay()
        return self._losses

    def _set(self, batch: Batch) -> None:
        for ours, theirs in zip(_tensors(self._batch), _tensors(batch), strict=True):
            ours.copy_(theirs, non_blocking=True)


def gradient_scaler(precision: torch.dtype, device: torch.device) -> torch.amp.GradScaler | None:
    """Return what training in `precision` needs against underflow: float16 alone has too few exponents."""
    return torch.amp.GradScaler(device.type) if precision is torch.float16 else None


def fastest_step(step: EagerStep, example: Batch, n_steps: int) -> Step:
    """Return `step`, captured if it is on a GPU and many enough steps are to be made; if it can't be, the log says why.

    The result of a training does not depend on which it is, beyond the order of floating-point sums. Steps of several
    processes are not captured.
    """
    if example.targets.device.type != "cuda" or n_steps < 10 * _N_WARM_UP or step.processes.count > 1:
        return step
    try:
        return GraphedStep(step, example)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        _log.warning("the training step runs operator by operator, since it could not be captured: %s", reason)
        return step


class _Snapshot:
    """All that a step changes, as it was."""

    def __init__(self, step: EagerStep, device: torch.device) -> None:
        self._optimizer = step.optimizer
        self._scaler = step.scaler
        self._scale = step.scaler.state_dict() if step.scaler else {}
        self._device = device
        self._tensors = list(step.student.state())
        self._values = [tensor.detach().clone() for tensor in self._tensors]
        # Empty before the first step of a training that was not taken up: what comes to be then, is put back to zeros.
        self._moments = {
            parameter: {name: value.clone() for name, value in state.items()}
            for parameter, state in step.optimizer.state.items()
        }
        self._random = torch.cuda.get_rng_state(device)

    @torch.no_grad()
    def restore(self) -> None:
        """Put it back, in place."""
        for tensor, value in zip(self._tensors, self._values, strict=True):
            tensor.copy_(value)
        for parameter, state in self._optimizer.state.items():
            for name, tensor in state.items():
                before = self._moments.get(parameter, {}).get(name)
                tensor.zero_() if before is None else tensor.copy_(before)
        if self._scaler is not None:
            self._scaler.load_state_dict(self._scale)
        torch.cuda.set_rng_state(self._random, self._device)


def _tensors(batch: Batch) -> Iterator[torch.Tensor]:
    for part in batch:
        if isinstance(part, torch.Tensor):
            yield part
        elif part is not None:
            yield from part
