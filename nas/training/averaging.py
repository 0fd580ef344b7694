"""Averaged weights: less noise than the last step's, at the price of batch statistics that have to be taken anew."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nas.training.batches import Batch
from nas.training.student import Student


class MovingAverage:
    """The exponential moving average of a student's weights.

    The decay is warmed up, so that a training of a few hundred steps is not averaged with its start.

    Args:
        student: Whose weights.
        decay: In 0 .. 1; that of step t, from 0, is the smaller of it and (1 + t) / (10 + t).

    Source:
        The warm-up is that of TensorFlow's `ExponentialMovingAverage(num_updates=...)`.
    """

    def __init__(self, student: Student, decay: float) -> None:
        self._parameters = student.parameters()
        self._averages = [parameter.detach().clone() for parameter in self._parameters]
        self._decay = decay
        self._n_steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, (1 + self._n_steps) / (10 + self._n_steps))
        get_ema_multi_avg_fn(decay)(self._averages, self._parameters, self._n_steps)  # type: ignore[no-untyped-call]
        self._n_steps += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average in place of the weights."""
        for parameter, average in zip(self._parameters, self._averages, strict=True):
            parameter.copy_(average)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"averages": self._averages, "n_steps": self._n_steps}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        for average, value in zip(self._averages, state["averages"], strict=True):
            average.copy_(value)
        self._n_steps = state["n_steps"]


@torch.no_grad()
def recompute_batch_norm(student: Student, batches: Iterable[Batch]) -> None:
    """Set the statistics of all batch normalisation in train mode to their means over `batches`.

    Source:
        Izmailov et al. 2018, arXiv:1803.05407, section 3.2.
    """
    norms = [module for module in student.trained_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the mean over all batches
    for batch in batches:
        student.outputs(batch.inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
