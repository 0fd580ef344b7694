"""Layers of a model as models of their own, to be measured alone in their real shapes."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from latency.graph.operator_graph import Operator, OperatorGraph, StorageKind, TensorReference
from latency.predictors.layers import Layer, layer_of, operators_by_layer


class LayerAlone(nn.Module):
    """Runs the operators of one layer, fused ones too, on random numbers.

    Its forward pass takes the activations that the layer's first operator reads, and gives them to the operators in
    place of others of the same shape too; weights, and what else the operators read, are buffers of its own.

    Args:
        graph: That the layer was traced in.
        operators: Of the layer, in their order.

    Attributes:
        input_shape: Of the activations, without the batch.
    """

    def __init__(self, graph: OperatorGraph, operators: Sequence[Operator]) -> None:
        super().__init__()
        self._operators = tuple(operators)
        made = {tensor for operator in operators for tensor in operator.outputs}
        given = dict.fromkeys(t for operator in operators for t in operator.inputs if t not in made)
        activations = [t for t in given if graph.storages[graph.tensors[t].storage].kind in _ACTIVATIONS]
        shape = graph.tensors[activations[0]].shape
        self.input_shape = shape[1:]
        self._taken = {t for t in activations if graph.tensors[t].shape == shape}
        generator = torch.Generator().manual_seed(0)
        for tensor in (t for t in given if t not in self._taken):
            info = graph.tensors[tensor]
            numbers = torch.rand(info.shape, generator=generator)  # positive, since variances are among them
            self.register_buffer(f"tensor{tensor}", numbers.to(info.dtype))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return what the last operator gives."""
        known = dict.fromkeys(self._taken, activations)

        def tensor_of(reference: TensorReference) -> torch.Tensor:
            found = known.get(reference.tensor)
            return self.get_buffer(f"tensor{reference.tensor}") if found is None else found

        for operator in self._operators:
            assert operator.call is not None  # noqa: S101 - the graph was traced from torch
            args, kwargs = tree_map_only(TensorReference, tensor_of, (operator.call.args, dict(operator.call.kwargs)))
            results = [leaf for leaf in tree_leaves(operator.call.function(*args, **kwargs)) if leaf is not None]
            known.update(zip(operator.outputs, results, strict=False))
        return known[self._operators[-1].outputs[0]]


_ACTIVATIONS = (StorageKind.ACTIVATION, StorageKind.INPUT)


def layers_alone(graph: OperatorGraph) -> dict[Layer, Callable[[], LayerAlone]]:
    """Return how to make the different layers of a model that can be measured alone, in eval mode.

    These are the layers that read a batch of activations. Of equal ones the last counts: fused operators may differ.

    Args:
        graph: Traced from torch.
    """
    by_layer = ((layer_of(operators[0], graph), operators) for operators in operators_by_layer(graph))
    return {layer: partial(_made, graph, operators) for layer, operators in by_layer if _can_run(operators, graph)}


def _made(graph: OperatorGraph, operators: Sequence[Operator]) -> LayerAlone:
    return LayerAlone(graph, operators).eval()


def _can_run(operators: Sequence[Operator], graph: OperatorGraph) -> bool:
    first = next(
        (
            graph.tensors[t]
            for t in operators[0].inputs
            if graph.storages[graph.tensors[t].storage].kind in _ACTIVATIONS
        ),
        None,
    )
    if first is None or len(first.shape) < 2 or first.shape[0] != graph.batch_size:
        return False
    return first.dtype.is_floating_point and all(o.call is not None and not o.has_open_sizes for o in operators)
