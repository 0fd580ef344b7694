"""The layers that a runtime runs, read off a model's operators: what it fuses counts as one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency.counting.mac_formulas import MAC_FORMULAS
from latency.counting.other_operations import OTHER_OPERATIONS, WITHOUT_OPERATIONS, OperationKind
from latency.graph.operator_graph import Operator, OperatorGraph, StorageKind
from latency.predictors.base import Encodings

_FUSED = frozenset({OperationKind.NORMALISATION, OperationKind.ACTIVATION, OperationKind.ELEMENTWISE})
_MOVES = frozenset({"aten.cat", "aten.clone", "aten._to_copy", "aten.constant_pad_nd"})  # they copy numbers
_NUMBERS = ("macs", "read", "written", "weights")
_ROOT = 0.5  # exponent of the second sums of costs: small layers use a processor badly
_FAR = 0.25  # of the range of what was learnt from, by which a feature may lie outside it


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
    n_readers = Counter(tensor for operator in graph.operators for tensor in set(operator.inputs))
    layers: list[Layer] = []
    fusing: set[int] = set()  # tensors whose only reader joins the layer that made them
    for operator in graph.operators:
        is_product = operator.name in MAC_FORMULAS
        kind = OTHER_OPERATIONS.get(operator.name, (None, None))[0]
        if not is_product and operator.name in WITHOUT_OPERATIONS and operator.name not in _MOVES:
            fusing.update(operator.outputs if fusing.intersection(operator.inputs) else ())
            continue
        joined = fusing.intersection(t for t in operator.inputs if n_readers[t] == 1)
        if joined and kind in _FUSED:
            fusing.update(operator.outputs)
            continue
        layers.append(_layer(operator, graph))
        if is_product:
            fusing.update(operator.outputs)
    return tuple(layers)


def _layer(operator: Operator, graph: OperatorGraph) -> Layer:
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


@dataclass(frozen=True)
class LayerEncoder:
    """Encodes sequences of layers by the kinds of those that are learnt from.

    Attributes:
        kinds: Of layers, sorted.
        ranges: Least and most layers of each kind in the models learnt from.
    """

    kinds: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, models: Sequence[Sequence[Layer]]) -> "LayerEncoder":
        """Return the encoder for models like these.

        Raises:
            ValueError: If there are none.
        """
        if not models:
            raise ValueError("models must hold one at least, got none")
        kinds = tuple(sorted({layer.kind for layers in models for layer in layers}))
        counts = [Counter(layer.kind for layer in layers) for layers in models]
        return cls(kinds, tuple((min(c[kind] for c in counts), max(c[kind] for c in counts)) for kind in kinds))

    def encode(self, models: Sequence[Sequence[Layer]]) -> Encodings:
        """Return the encodings; layers of unknown kinds count in the sums over all layers alone."""
        index = {kind: place for place, kind in enumerate(self.kinds)}
        n_kinds, longest = len(self.kinds), max((len(layers) for layers in models), default=0)
        counts = np.zeros((len(models), n_kinds))
        sums, roots = (np.zeros((len(models), n_kinds + 1, len(_NUMBERS))) for _ in range(2))
        tokens = np.zeros((len(models), longest, n_kinds + len(_NUMBERS) + 1), np.float32)
        for row, layers in enumerate(models):
            for place, layer in enumerate(layers):
                kind = index.get(layer.kind, n_kinds)
                numbers = np.array(layer.numbers, float)
                for where in {kind, n_kinds}:
                    sums[row, where] += numbers
                    roots[row, where] += numbers**_ROOT
                if kind < n_kinds:
                    counts[row, kind] += 1
                    tokens[row, place, kind] = 1
                tokens[row, place, n_kinds:-1] = np.log1p(numbers) / 20
                tokens[row, place, -1] = place / longest
        groups = {"operations": counts}
        for number, name in enumerate(_NUMBERS):
            groups[f"costs.{name}"] = sums[:, :, number]
            groups[f"roots.{name}"] = roots[:, :, number]
        return Encodings(groups, tokens, np.array([len(layers) for layers in models]))

    def doubts(self, layers: Sequence[Layer]) -> tuple[str, ...]:
        """Return in words why nothing learnt may hold for a model: unknown layers, or many more or fewer of a kind."""
        unknown = sorted({layer.kind for layer in layers} - set(self.kinds))
        found = [f"layers that nothing is known of: {', '.join(unknown)}"] if unknown else []
        counts = Counter(layer.kind for layer in layers)
        for kind, (low, high) in zip(self.kinds, self.ranges, strict=True):
            slack = max(1.0, _FAR * (high - low))
            if not low - slack <= counts[kind] <= high + slack:
                found.append(f"{counts[kind]} layers {kind!r}, where {low} to {high} were measured")
        return tuple(found)
