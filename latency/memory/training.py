"""The operators of one training step, traced on meta tensors: forward, loss, backward, optimiser."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from latency.errors import TracingError
from latency.graph.attention import CpuAttention
from latency.graph.operator_graph import OperatorGraph, StorageKind
from latency.graph.tracer import ModulePath, OperatorRecorder, explain_failure
from latency.sizes import require_input_shape, require_positive

OptimizerFactory = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]


def mean_of_outputs(output: Any) -> torch.Tensor:
    """Return the mean of everything that a model returned: the simplest loss, which keeps nothing."""
    means = [tensor.float().mean() for tensor in tree_leaves(output) if isinstance(tensor, torch.Tensor)]
    return torch.stack(means).sum()


def trace_training_step(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    batch_size: int,
    optimizer: OptimizerFactory = torch.optim.Adam,
    loss: Callable[[Any], torch.Tensor] = mean_of_outputs,
) -> OperatorGraph:
    """Trace a step in the middle of a training: the optimiser has its state, gradients were set to `None`.

    Activations live as long as the backward pass needs them, gradients from then until the end of the step. The
    optimiser goes parameter by parameter, as torch's do on the CPU; on CUDA they take all at once by default
    (`foreach`), with temporary copies that are not in this graph.

    Args:
        model: In train mode, on any device. Neither it nor its weights are changed.
        input_shape: `(C, H, W)`, without the batch.
        batch_size: Images in the batch.
        optimizer: Makes the optimiser of the parameters, e.g. `functools.partial(torch.optim.SGD, lr=0.1)`.
        loss: Maps what the model returns, on meta tensors, to a scalar.

    Raises:
        ValueError: If a size is not positive, or no parameter is to be trained.
        TracingError: As for `graph_from_torch`.
    """
    require_positive(batch_size=batch_size)
    shape = (batch_size, *require_input_shape(input_shape))
    step = _Step(model, shape, optimizer, loss)
    step.trace()  # makes the optimiser's state
    return step.trace()


class _Step:
    """A model's weights as meta tensors, with their optimiser."""

    def __init__(
        self,
        model: nn.Module,
        shape: tuple[int, ...],
        optimizer: OptimizerFactory,
        loss: Callable[[Any], torch.Tensor],
    ) -> None:
        self._model, self._shape, self._loss = model, shape, loss
        self._buffers = {name: torch.empty_like(b, device="meta") for name, b in model.named_buffers()}
        self._parameters = {
            name: torch.empty_like(p, device="meta").requires_grad_(p.requires_grad)
            for name, p in model.named_parameters()
        }
        trained = [parameter for parameter in self._parameters.values() if parameter.requires_grad]
        if not trained:
            raise ValueError("model must have parameters that require gradients to be trained, got none")
        self._optimizer = optimizer(trained)

    def trace(self) -> OperatorGraph:
        """Return the graph of one step, which leaves gradients of `None`."""
        recorder = OperatorRecorder()
        parameters = {name: recorder.add(p, StorageKind.PARAMETER) for name, p in self._parameters.items()}
        buffers = {name: recorder.add(b, StorageKind.BUFFER) for name, b in self._buffers.items()}
        for state in self._optimizer.state.values():
            for tensor in tree_leaves(state):
                if isinstance(tensor, torch.Tensor):
                    recorder.add(tensor, StorageKind.OPTIMIZER_STATE)
        image = torch.empty(self._shape, device="meta")
        inputs = (recorder.add(image, StorageKind.INPUT),)
        path = ModulePath(self._model)
        recorder.module_path = path
        try:
            with path, CpuAttention(lambda: path.module), recorder:
                self._run(image, recorder)
        except Exception as fault:
            raise TracingError(
                explain_failure(self._model, self._shape, path.current, recorder.running, fault)
            ) from fault
        return OperatorGraph(
            tuple(recorder.operators),
            tuple(recorder.tensors),
            tuple(recorder.storages),
            inputs,
            (),
            parameters,
            buffers,
            self._shape[0],
            recorder.releases(),
        )

    def _run(self, image: torch.Tensor, recorder: OperatorRecorder) -> None:
        output = torch.func.functional_call(self._model, {**self._parameters, **self._buffers}, (image,))
        loss = self._loss(output)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self._parameters.values():
            if parameter.grad is not None:
                recorder.set_kind(parameter.grad, StorageKind.GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
