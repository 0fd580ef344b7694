"""Parameters and operations of a model, counted exactly from its operators.

Multiply-adds by the convention of the papers which report them: only convolutions, matrix products and attention
count, each product with its addition as one; FLOPs are 2 x `n_macs`. Normalisation (in eval mode a convolution
absorbs it), activations, pooling, resizing and sums are itemised as operations beside them; biases and data
movement count 0. An operator that is in none of the tables is never taken for 0: it is listed as uncounted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from latency.counting.mac_formulas import MAC_FORMULAS
from latency.counting.other_operations import OTHER_OPERATIONS, WITHOUT_OPERATIONS
from latency.errors import UncountedOperatorError
from latency.graph.operator_graph import OperatorGraph
from latency.graph.tracer import graph_from_torch


@dataclass(frozen=True)
class Complexity:
    """What a model costs on any device, for one sample.

    Attributes:
        n_params: All parameters, frozen and unused ones too, shared ones once.
        n_macs: Multiply-adds of one inference; FLOPs are twice as many.
        macs_by_operator: E.g. `{"aten.convolution": 1000}`, those above 0.
        macs_by_module: By the dotted path of the innermost module, those above 0.
        params_by_module: By the dotted path of the module that holds them (a shared one's first).
        uncounted: Operators without a formula, sorted; where there are any, the counts are only a part.
        other_operations: Operations beside the multiply-adds, by `OperationKind`, those above 0.
        other_operations_by_module: The same by module.
    """

    n_params: int
    n_macs: int
    macs_by_operator: Mapping[str, int]
    macs_by_module: Mapping[str, int]
    params_by_module: Mapping[str, int]
    uncounted: tuple[str, ...] = ()
    other_operations: Mapping[str, int] = field(default_factory=dict)
    other_operations_by_module: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_other_operations(self) -> int:
        """All operations beside the multiply-adds."""
        return sum(self.other_operations.values())

    @property
    def is_partial(self) -> bool:
        """Whether operators without a formula are missing from the counts."""
        return bool(self.uncounted)

    def require_complete(self) -> "Complexity":
        """Return this count if it is whole.

        Raises:
            UncountedOperatorError: Naming the operators without a formula.
        """
        if self.uncounted:
            raise UncountedOperatorError(
                f"no formula for {', '.join(self.uncounted)}: n_macs would be a part of the truth. "
                "Add the formula to mac_formulas.py or other_operations.py in latency/counting, or build without them",
                self.uncounted,
            )
        return self


def count(graph: OperatorGraph) -> Complexity:
    """Count the parameters and multiply-adds of a model traced with a batch of 1.

    Raises:
        ValueError: If `graph` is of another batch.
    """
    if graph.batch_size != 1:
        raise ValueError(f"graph must be traced with a batch of 1, got {graph.batch_size}")
    return count_sample(graph)


def count_sample(graph: OperatorGraph) -> Complexity:
    """Count one sample of a batch of any size, for a file that fixes its batch.

    What operators compute from the batch is divided by its size; one whose work is no multiple of it is uncounted.
    """
    by_operator: Counter[str] = Counter()
    by_module: Counter[str] = Counter()
    others: Counter[str] = Counter()
    others_by_module: Counter[str] = Counter()
    uncounted = set()
    of_batch = _depends_on_input(graph) if graph.batch_size > 1 else frozenset()
    for index, operator in enumerate(graph.operators):
        if operator.name in WITHOUT_OPERATIONS:
            continue
        kind, formula = OTHER_OPERATIONS.get(operator.name, (None, MAC_FORMULAS.get(operator.name)))
        work = None if formula is None or operator.has_open_sizes else formula(operator, graph)
        n_samples = graph.batch_size if index in of_batch else 1
        if work is None or work % n_samples:
            uncounted.add(operator.name)
        elif kind is None:
            by_operator[operator.name] += work // n_samples
            by_module[operator.module] += work // n_samples
        else:
            others[kind.value] += work // n_samples
            others_by_module[operator.module] += work // n_samples
    params_by_module: Counter[str] = Counter()
    for name, tensor in graph.parameters.items():
        params_by_module[name.rpartition(".")[0]] += graph.tensors[tensor].n_elements
    return Complexity(
        n_params=params_by_module.total(),
        n_macs=by_operator.total(),
        macs_by_operator=dict(+by_operator),
        macs_by_module=dict(+by_module),
        params_by_module=dict(params_by_module),
        uncounted=tuple(sorted(uncounted)),
        other_operations=dict(+others),
        other_operations_by_module=dict(+others_by_module),
    )


def _depends_on_input(graph: OperatorGraph) -> frozenset[int]:
    """Return the indices of the operators that read the input or what was computed from it."""
    reached, found = set(graph.inputs), set()
    for index, operator in enumerate(graph.operators):
        if not reached.isdisjoint(operator.inputs):
            found.add(index)
            reached.update(operator.outputs)
    return frozenset(found)


def count_model(model: nn.Module, input_shape: tuple[int, ...], *, dtype: torch.dtype | None = None) -> Complexity:
    """Trace `model` and count it, for one sample of `input_shape`, `(C, H, W)`; `dtype` as for `graph_from_torch`.

    Raises:
        ValueError: If `model` is in train mode, or a size is not positive.
        TracingError: If the model cannot be traced.
    """
    return count(graph_from_torch(model, input_shape, dtype=dtype))
