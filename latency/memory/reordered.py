"""A model whose operators run in another order than its code says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from latency.graph.operator_graph import Operator, OperatorCall, OperatorGraph, TensorReference
from latency.memory.dependencies import Dependencies


@dataclass(frozen=True)
class _Step:
    call: OperatorCall
    outputs: tuple[int, ...]
    releases: tuple[int, ...]


class ReorderedModel(nn.Module):
    """Runs a traced model's operators in a given order and lets go of each tensor after its last use.

    Takes inputs of the traced shape, batch included, and returns what the model returns: its tensor, or the tuple
    of its tensors where there are several. Weights are the model's own: changes of either show in both.

    Attributes:
        model: The model that was traced.
    """

    def __init__(self, model: nn.Module, graph: OperatorGraph, order: Sequence[int]) -> None:
        """Prepare the steps.

        Args:
            model: In eval mode.
            graph: `graph_from_torch` of this model.
            order: All operators of `graph`, each after those that it depends on.

        Raises:
            ValueError: If `order` leaves an operator out or runs one too early, if `graph` does not come from
                torch, or if the model reads a tensor that is neither a parameter nor a buffer.
        """
        super().__init__()
        _check_order(graph, order)
        self.model = model
        self._input_shape = graph.tensors[graph.inputs[0]].shape
        self._input, self._outputs = graph.inputs[0], graph.outputs
        self._state = {**graph.parameters, **graph.buffers}
        self._steps = _steps(graph, order)
        _check_sources(graph)

    def forward(self, image: torch.Tensor) -> Any:
        """Return the model's outputs for `image`, of the shape that was traced."""
        if tuple(image.shape) != self._input_shape:
            raise ValueError(f"image must have the traced shape {self._input_shape}, got {tuple(image.shape)}")
        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        tensors = {index: state[name] for name, index in self._state.items()}
        tensors[self._input] = image
        for step in self._steps:
            _run(step, tensors, image.device)
        outputs = tuple(tensors[index] for index in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs


def _run(step: _Step, tensors: dict[int, torch.Tensor], device: torch.device) -> None:
    args = _filled_in(step.call.args, tensors)
    kwargs = {name: _filled_in(value, tensors) for name, value in step.call.kwargs.items()}
    if kwargs.get("device") == torch.device("meta"):
        kwargs["device"] = device
    result = step.call.function(*args, **kwargs)
    tensors.update(zip(step.outputs, _flat(result), strict=True))
    for index in step.releases:
        del tensors[index]


def _filled_in(value: Any, tensors: Mapping[int, torch.Tensor]) -> Any:
    if isinstance(value, TensorReference):
        return tensors[value.tensor]
    if isinstance(value, tuple):
        return tuple(_filled_in(item, tensors) for item in value)
    return value


def _flat(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for item in result for tensor in _flat(item)] if isinstance(result, list | tuple) else []


def _steps(graph: OperatorGraph, order: Iterable[int]) -> tuple[_Step, ...]:
    kept = {*graph.outputs, *graph.parameters.values(), *graph.buffers.values()}
    steps: list[_Step] = []
    for operator in reversed([graph.operators[index] for index in order]):
        last_used = dict.fromkeys(t for t in (*operator.inputs, *operator.outputs) if t not in kept)
        kept |= last_used.keys()
        steps.append(_Step(_call(operator), operator.outputs, tuple(last_used)))
    return tuple(reversed(steps))


def _call(operator: Operator) -> OperatorCall:
    if operator.call is None:
        raise ValueError(f"graph must come from a torch model to run again, but {operator.name} does not")
    return operator.call


def _check_order(graph: OperatorGraph, order: Sequence[int]) -> None:
    if sorted(order) != list(range(len(graph.operators))):
        raise ValueError(f"order must hold each of the graph's {len(graph.operators)} operators once, got {order}")
    dependencies, done = Dependencies.of(graph), 0
    for index in order:
        if missing := dependencies.predecessors[index] & ~done:
            before = (missing & -missing).bit_length() - 1
            raise ValueError(f"order must run operator {before} before {index} ({graph.operators[index].name})")
        done |= 1 << index


def _check_sources(graph: OperatorGraph) -> None:
    known = {*graph.inputs, *graph.parameters.values(), *graph.buffers.values()}
    for operator in graph.operators:
        if foreign := set(operator.inputs) - known:
            shape = graph.tensors[min(foreign)].shape
            raise ValueError(
                f"graph must read parameters, buffers and its input only, but {operator.name} in "
                f"{operator.module or 'the model'!r} reads another tensor of shape {shape}: register it as a buffer"
            )
        known.update(operator.outputs)
