"""A network as it is trained: which part of it, and with which heads beside its own."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn

from nas.tasks.base import Task
from nas.training.batches import Batch, FeatureData, TrainingData
from nas.training.distillation import Distillation
from search_spaces.base import StagedNetwork


class Student:
    """What one training changes of a network, and what it is told for a batch.

    Stored features train all but the encoder, which then stays in eval mode. Auxiliary heads are trained along and
    dropped with this object.

    Args:
        model: In train mode, on the device of `data`.
        data: What it is trained on.
        auxiliary_weight: Factor of the auxiliary heads' mean loss; at 0, and for networks that have none to offer,
            there are none.
        seed: Of the heads.
        precision: Of convolutions and the like; losses are float32 whatever it is.

    Raises:
        ValueError: If features are given to a network that does not tell its encoder from the rest.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        auxiliary_weight: float,
        seed: int,
        precision: torch.dtype = torch.float32,
    ) -> None:
        staged = model if isinstance(model, StagedNetwork) else None
        self._reads_features = isinstance(data, FeatureData)
        if self._reads_features and staged is None:
            raise ValueError(f"data must be images: {type(model).__name__} has no encoder apart from its decoder")
        self._model, self._staged = model, staged
        self._image_size = data.image_size
        self._precision = precision
        self._device_type = data.device.type
        self._auxiliary_weight = auxiliary_weight
        self._heads: nn.Module | None = None
        if staged is not None and auxiliary_weight:
            self._heads = staged.new_auxiliary_heads(seed).to(data.device)
        if staged is not None and self._reads_features:
            staged.encoder.eval()

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        heads = () if self._heads is None else self._heads.parameters()
        left_out: set[nn.Parameter] = set()
        if self._staged is not None and self._reads_features:
            left_out = set(self._staged.encoder.parameters())
        return [p for p in (*self._model.parameters(), *heads) if p.requires_grad and p not in left_out]

    def state(self) -> Iterator[torch.Tensor]:
        """Yield all that a training changes: weights and batch statistics, the auxiliary heads' too."""
        yield from (parameter.data for parameter in self.parameters())
        yield from self._model.buffers()
        if self._heads is not None:
            yield from self._heads.buffers()

    def trained_modules(self) -> Iterator[nn.Module]:
        """Yield the network's modules that are in train mode."""
        return (module for module in self._model.modules() if module.training)

    def losses(self, batch: Batch, task: Task, distillation: Distillation | None) -> torch.Tensor:
        """Return `(2,)`: the task's loss, auxiliary heads included, and the weighted distillation term, 0 for none."""
        output, said = self.outputs(batch.inputs)
        loss = task.loss(output, batch.targets)
        if said:
            beside = torch.stack([task.loss(auxiliary, batch.targets) for auxiliary in said])
            loss = loss + self._auxiliary_weight * beside.mean()
        if distillation is None or batch.teacher_logits is None:
            return torch.stack([loss, torch.zeros_like(loss)])
        term = distillation.term(output, batch.teacher_logits, task.target_weights(batch.targets))
        return torch.stack([loss, term])

    def outputs(self, inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the logits, and what the auxiliary heads say, in float32."""
        with self.autocast():
            output, said = self._outputs(inputs)
        return output.float(), tuple(auxiliary.float() for auxiliary in said)

    def autocast(self) -> AbstractContextManager[object]:
        """Let convolutions and the like compute in this student's precision."""
        if self._precision is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device_type, self._precision)

    def _outputs(
        self, inputs: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        if self._staged is None or (self._heads is None and isinstance(inputs, torch.Tensor)):
            return self._model(inputs), ()
        features = self._staged.encode(inputs) if isinstance(inputs, torch.Tensor) else inputs
        if self._heads is None:
            return self._staged.decode(features, self._image_size), ()
        return self._staged.decode_with_auxiliary(features, self._image_size, self._heads)
