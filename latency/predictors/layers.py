"""The layers that a runtime runs, read off a model's operators: what it fuses counts as one."""

from collections import Counter
from dataclasses import dataclass

from latency.counting.mac_formulas import MAC_FORMULAS
from latency.counting.other_operations import OTHER_OPERATIONS, WITHOUT_OPERATIONS, OperationKind
from latency.graph.operator_graph import Operator, OperatorGraph, StorageKind

_FUSED = frozenset({OperationKind.NORMALISATION, OperationKind.ACTIVATION, OperationKind.ELEMENTWISE})
_MOVES = frozenset({"aten.cat", "aten.clone", "aten._to_copy", "aten.constant_pad_nd"})  # they copy numbers


@dataclass(frozen=True)
class Layer:
    """One step of an inference.

    Attributes:
        kind: What runs, such as `"convolution 3x3 depthwise"`.
        n_macs: Multiply-adds.
        n_read: Elements of activations that it reads.
        n_written: Elements that it writes.
        n_weights: Elements of parameters and buffers that it reads.
    """

    kind: str
    n_macs: int
    n_read: int
    n_written: int
    n_weights: int

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """The four numbers."""
        return self.n_macs, self.n_read, self.n_written, self.n_weights


def layers_of(graph: OperatorGraph) -> tuple[Layer, ...]:
    """Return the layers of a model in the order in which they run.

    A normalisation, activation or elementwise operator that alone reads what a convolution or matrix product gave is
    part of that layer, as runtimes fuse it. Views are no layers.
    """
    return tuple(layer_of(operators[0], graph) for operators in operators_by_layer(graph))


def operators_by_layer(graph: OperatorGraph) -> list[list[Operator]]:
    """Return the operators of each layer: the first says what it is, the others are fused into it; see `layers_of`."""
    n_readers = Counter(tensor for operator in graph.operators for tensor in set(operator.inputs))
    layers: list[list[Operator]] = []
    fusing: dict[int, int] = {}  # the layer that made a tensor whose only reader joins it
    for operator in graph.operators:
        is_product = operator.name in MAC_FORMULAS
        kind = OTHER_OPERATIONS.get(operator.name, (None, None))[0]
        if not is_product and operator.name in WITHOUT_OPERATIONS and operator.name not in _MOVES:
            if viewed := fusing.keys() & set(operator.inputs):
                made_by = max(fusing[t] for t in viewed)
                layers[made_by].append(operator)
                fusing |= dict.fromkeys(operator.outputs, made_by)
            continue
        joined = [fusing[t] for t in operator.inputs if t in fusing and n_readers[t] == 1]
        if joined and kind in _FUSED:
            layers[max(joined)].append(operator)
            fusing |= dict.fromkeys(operator.outputs, max(joined))
            continue
        layers.append([operator])
        if is_product:
            fusing |= dict.fromkeys(operator.outputs, len(layers) - 1)
    return layers


def layer_of(operator: Operator, graph: OperatorGraph) -> Layer:
    """Return the layer that begins with this operator."""
    formula = MAC_FORMULAS.get(operator.name)
    n_macs = (formula(operator, graph) if formula and not operator.has_open_sizes else 0) or 0
    constant = (StorageKind.PARAMETER, StorageKind.BUFFER)
    is_weight = {t: graph.storages[graph.tensors[t].storage].kind in constant for t in operator.inputs}
    return Layer(
        kind=_kind(operator, graph),
        n_macs=n_macs,
        n_read=sum(graph.tensors[t].n_elements for t, weight in is_weight.items() if not weight),
        n_written=sum(graph.tensors[t].n_elements for t in operator.outputs),
        n_weights=sum(graph.tensors[t].n_elements for t, weight in is_weight.items() if weight),
    )


def _kind(operator: Operator, graph: OperatorGraph) -> str:
    name = operator.name.removeprefix("aten.").removeprefix("onnx.")
    if name.lower() not in ("convolution", "conv", "convtranspose") or len(operator.inputs) < 2:
        return name
    weight, image = (graph.tensors[operator.inputs[index]] for index in (1, 0))
    kernel = "x".join(map(str, weight.shape[2:]))
    groups = int(operator.attributes.get("groups", operator.attributes.get("group", 1)))
    grouping = "" if groups == 1 else " depthwise" if groups == image.shape[1] else " grouped"
    is_transposed = operator.attributes.get("transposed", name == "ConvTranspose")
    return f"{'transposed ' if is_transposed else ''}convolution {kernel}{grouping}"
