"""What an ONNX file runs for inputs of given sizes: branches chosen, loops unrolled, where this is known beforehand."""

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from latency.errors import TracingError
from latency.graph.onnx_bodies import Body, Node, Value, closed_sizes, tensor_type
from latency.graph.onnx_shapes import ShapeInference, most_closed

_MAX_STEPS = 50_000  # a loop that would run more operators than this is not unrolled
_Scope = MutableMapping[str, Value]


@dataclass(frozen=True)
class Step:
    """One operator at work.

    Attributes:
        node: As the file has it.
        inputs: `None` for an optional argument that is left out.
        outputs: The same for results.
        is_computed: Whether its results are known before anything runs: it does not run then.
    """

    node: Node
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...]
    is_computed: bool


@dataclass(frozen=True)
class Flow:
    """What runs.

    Attributes:
        inputs: Of the file.
        outputs: Of the file.
        steps: In order. An `If` or a loop stands among them only where its way is not known beforehand.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    steps: tuple[Step, ...]


class Walk:
    """Goes through a file as a runtime would, with types and known numbers instead of tensors."""

    def __init__(self, body: Body, inference: ShapeInference, inferred: Mapping[str, onnx.TypeProto]) -> None:
        """Prepare.

        Args:
            body: The file's graph, the sizes of its inputs closed.
            inference: For single nodes.
            inferred: Types by name that onnx found for the whole graph.
        """
        self._body = body
        self._inference = inference
        self._inferred = inferred
        self._steps: list[Step] = []

    def run(self) -> Flow:
        """Return what runs.

        Raises:
            TracingError: If a node reads a name that nobody makes.
        """
        inputs = {value.name: Value(value.name, value.type) for value in self._body.inputs}
        outputs = self._walk(self._body, dict(inputs), {**self._body.declared, **self._inferred})
        return Flow(tuple(inputs.values()), tuple(outputs), tuple(self._steps))

    def _walk(self, body: Body, scope: _Scope, known: Mapping[str, onnx.TypeProto]) -> list[Value]:
        scope.update(body.constants)
        for node in body.nodes:
            inputs = tuple(self._read(scope, name, node) if name else None for name in node.proto.input)
            outputs = self._in_body(node, inputs, scope) or self._alone(node, inputs, known)
            scope.update({value.name: value for value in outputs if value is not None})
        return [self._read(scope, name, None) for name in body.outputs]

    def _read(self, scope: _Scope, name: str, node: Node | None) -> Value:
        if name in scope:
            return scope[name]
        reader = f"operator {node.proto.name!r} ({node.proto.op_type})" if node else "the graph's output"
        raise TracingError(f"{reader} reads {name!r}, which nothing makes")

    def _alone(
        self, node: Node, inputs: tuple[Value | None, ...], known: Mapping[str, onnx.TypeProto]
    ) -> tuple[Value | None, ...]:
        """Take an operator as it stands."""
        names = node.proto.output
        found = self._inference.infer(node, inputs)
        types = [most_closed((kind, known.get(name))) for kind, name in zip(found, names, strict=True)]
        data = self._inference.compute(node, inputs, types)
        read = inputs[:1] if node.key == ("", "CastLike") else inputs  # of the other one it takes the type
        is_constant = bool(inputs) and all(value is None or value.is_constant for value in read)
        outputs = tuple(
            Value(name, _type_of(array) or kind, array, is_constant or array is not None) if name else None
            for name, kind, array in zip(names, types, data, strict=True)
        )
        is_computed = all(value is None or value.data is not None for value in outputs)
        self._steps.append(Step(node, inputs, outputs, is_computed))
        return outputs

    def _in_body(self, node: Node, inputs: tuple[Value | None, ...], scope: _Scope) -> tuple[Value | None, ...] | None:
        """Take what an operator runs instead of itself; `None` where that is not known, or nothing."""
        taken = len(self._steps)
        match node.key:
            case ("", "If"):
                outputs = self._branch(node, inputs, scope)
            case ("", "Loop"):
                outputs = self._loop(node, inputs, scope)
            case ("", "Scan") if len(node.proto.input) and "num_scan_inputs" in node.attributes:
                outputs = self._scan(node, inputs, scope)
            case _:
                return None
        if outputs is None:
            del self._steps[taken:]
            return None
        return tuple(
            _renamed(value, name) if name else None for value, name in zip(outputs, node.proto.output, strict=True)
        )

    def _branch(self, node: Node, inputs: Sequence[Value | None], scope: _Scope) -> list[Value] | None:
        condition = _known_flag(inputs[0])
        if condition is None:
            return None
        body = node.bodies["then_branch" if condition else "else_branch"]
        return self._walk(body, ChainMap({}, scope), body.declared)

    def _loop(self, node: Node, inputs: Sequence[Value | None], scope: _Scope) -> list[Value] | None:
        body = node.bodies["body"]
        limit, condition, *carried = inputs
        go_on = True if condition is None else _known_flag(condition)
        if (limit is not None and limit.data is None) or any(value is None for value in carried):
            return None
        n_most = None if limit is None or limit.data is None else int(limit.data)
        state = [value for value in carried if value is not None]
        scanned: list[list[Value]] = []
        iteration = 0
        while go_on and (n_most is None or iteration < n_most):
            if len(self._steps) > _MAX_STEPS or iteration > _MAX_STEPS:
                return None
            counter = Value("", tensor_type(onnx.TensorProto.INT64, ()), np.array(iteration), is_constant=True)
            flag = Value("", tensor_type(onnx.TensorProto.BOOL, ()), np.array(True), is_constant=True)
            go, *results = self._iterate(body, [counter, flag, *state], scope)
            state, scanned = results[: len(state)], [*scanned, results[len(state) :]]
            go_on, iteration = _known_flag(go), iteration + 1
        if go_on is None:
            return None
        n_scanned = len(node.proto.output) - len(state)
        return [*state, *_stacked(body.outputs[1 + len(state) :], scanned, [0] * n_scanned, body)]

    def _scan(self, node: Node, inputs: Sequence[Value | None], scope: _Scope) -> list[Value] | None:
        body, n_scan = node.bodies["body"], node.attributes["num_scan_inputs"]
        given = [value for value in inputs if value is not None]
        if len(given) < len(inputs) or len(body.inputs) != len(given):  # Scan 8 has sequence lengths and a batch
            return None
        state, scans = given[: len(given) - n_scan], given[len(given) - n_scan :]
        axes = node.attributes.get("scan_input_axes", [0] * n_scan)
        slices = [_without(value, axis) for value, axis in zip(scans, axes, strict=True)]
        if any(value.sizes is None for value in slices) or not slices:
            return None
        scanned: list[list[Value]] = []
        sizes = scans[0].sizes
        for _ in range(sizes[axes[0]] if sizes else 0):
            if len(self._steps) > _MAX_STEPS:
                return None
            results = self._iterate(body, [*state, *slices], scope)
            state, scanned = results[: len(state)], [*scanned, results[len(state) :]]
        names = body.outputs[len(state) :]
        return [*state, *_stacked(names, scanned, node.attributes.get("scan_output_axes", [0] * len(names)), body)]

    def _iterate(self, body: Body, given: Sequence[Value], scope: _Scope) -> list[Value]:
        inner: _Scope = ChainMap({}, scope)
        inner.update({to.name: _renamed(value, to.name) for to, value in zip(body.inputs, given, strict=True)})
        return self._walk(body, inner, {})


def _renamed(value: Value, name: str) -> Value:
    """Return the same tensor as a body calls it, or whoever runs the body."""
    return Value(name, value.type, value.data, value.is_constant, value.origin)


def _known_flag(value: Value | None) -> bool | None:
    return None if value is None or value.data is None or value.data.size != 1 else bool(value.data.reshape(()))


def _type_of(data: np.ndarray | None) -> onnx.TypeProto | None:
    return None if data is None else tensor_type(onnx.helper.np_dtype_to_tensor_dtype(data.dtype), data.shape)


def _without(value: Value, axis: int) -> Value:
    """Return a slice of `value` along `axis`."""
    if value.sizes is None or value.type is None:
        return Value(value.name, None)
    sizes = list(value.sizes)
    del sizes[axis]
    return Value("", tensor_type(value.type.tensor_type.elem_type, sizes))


def _stacked(names: Sequence[str], rows: Sequence[Sequence[Value]], axes: Sequence[int], body: Body) -> Iterator[Value]:
    """Yield what each iteration made, side by side along a new axis."""
    for position, (name, axis) in enumerate(zip(names, axes, strict=True)):
        kinds = [row[position].type for row in rows] or [body.declared.get(name)]
        sizes = [None if kind is None else closed_sizes(kind) for kind in kinds]
        first = sizes[0]
        if kinds[0] is None or first is None or any(other != first for other in sizes):
            yield Value("", None)
            continue
        at = axis if axis >= 0 else axis + len(first) + 1
        stacked = (*first[:at], len(rows), *first[at:])
        yield Value("", tensor_type(kinds[0].tensor_type.elem_type, stacked))
