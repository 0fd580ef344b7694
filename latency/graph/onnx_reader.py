"""Reads the operators of an ONNX file: the same graph that is traced from a torch model, without running anything."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from onnx import shape_inference

from latency.errors import TracingError
from latency.graph.onnx_bodies import Body, Value, read_body
from latency.graph.onnx_file import inlined, load_onnx, onnx_boundary
from latency.graph.onnx_flow import Flow, Step, Walk
from latency.graph.onnx_shapes import ShapeInference
from latency.graph.onnx_sizes import close_sizes, file_sizes
from latency.graph.onnx_weights import parameters_among
from latency.graph.operator_graph import Operator, OperatorGraph, Storage, StorageKind, TensorInfo
from latency.sizes import require_input_shape, require_positive

_TENSOR = onnx.TensorProto
_DTYPES: dict[int, torch.dtype] = {
    _TENSOR.FLOAT: torch.float32,
    _TENSOR.DOUBLE: torch.float64,
    _TENSOR.FLOAT16: torch.float16,
    _TENSOR.BFLOAT16: torch.bfloat16,
    _TENSOR.COMPLEX64: torch.complex64,
    _TENSOR.COMPLEX128: torch.complex128,
    _TENSOR.INT64: torch.int64,
    _TENSOR.INT32: torch.int32,
    _TENSOR.INT16: torch.int16,
    _TENSOR.INT8: torch.int8,
    _TENSOR.INT4: torch.int4,  # type: ignore[attr-defined]
    _TENSOR.INT2: torch.int2,  # type: ignore[attr-defined]
    _TENSOR.UINT64: torch.uint64,
    _TENSOR.UINT32: torch.uint32,
    _TENSOR.UINT16: torch.uint16,
    _TENSOR.UINT8: torch.uint8,
    _TENSOR.UINT4: torch.uint4,  # type: ignore[attr-defined]
    _TENSOR.UINT2: torch.uint2,  # type: ignore[attr-defined]
    _TENSOR.BOOL: torch.bool,
    _TENSOR.FLOAT8E4M3FN: torch.float8_e4m3fn,
    _TENSOR.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    _TENSOR.FLOAT8E5M2: torch.float8_e5m2,
    _TENSOR.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    _TENSOR.FLOAT8E8M0: torch.float8_e8m0fnu,
    _TENSOR.FLOAT4E2M1: torch.float4_e2m1fn_x2,
}
# Several of these lie in one byte.
_BITS: dict[int, int] = {_TENSOR.INT4: 4, _TENSOR.UINT4: 4, _TENSOR.FLOAT4E2M1: 4, _TENSOR.INT2: 2, _TENSOR.UINT2: 2}
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
# What stays in place of its argument, where that is a constant: a runtime stores it so once and for all.
_STORED_IN_PLACE = _VIEWS | {"Cast", "Transpose", "DequantizeLinear", "QuantizeLinear"}
_STANDARD_DOMAINS = ("", "ai.onnx")


def graph_from_onnx(
    path: Path | str, input_shape: tuple[int, ...] | None = None, *, batch_size: int | None = None
) -> OperatorGraph:
    """Return the operators of an ONNX file as they stand in it, before any runtime fuses them.

    Operators are called `onnx.Conv` and so on, those of other domains by their domain. Modules are those that the
    exporter wrote into names of operators or weights, empty where it wrote none. Reshapes are views of their input.
    Weights are read by their shapes alone, so external data need not be there. Parameters are the floating-point
    constants but for single numbers, statistics and scales, and the integers that quantised operators take for
    weights; all other constants are buffers. A weight that is dequantised is one tensor, in the bytes in which it lies.
    Branches that are known beforehand are followed and loops unrolled; arithmetic of sizes is computed and left out. An
    optional argument that is left out is an empty tensor.

    Args:
        path: The file.
        input_shape: `(C, H, W)`, without the batch; needed only where the file leaves sizes open.
        batch_size: The batch, where the file leaves its first size open; `None` for the file's own, or 1.

    Raises:
        ValueError: If a size is not positive, or contradicts the file's.
        TracingError: If the file cannot be read, or takes or holds what is no tensor of numbers.
    """
    require_positive(batch_size=batch_size)
    shape = None if input_shape is None else require_input_shape(input_shape)
    model = load_onnx(path)
    with onnx_boundary(path):
        model = inlined(model)
    declared = close_sizes(model.graph, shape, batch_size, Path(path))
    with onnx_boundary(path):
        model = shape_inference.infer_shapes(model, data_prop=True)
        body = read_body(model.graph)
        flow = Walk(body, ShapeInference(model), declared).run()
        return _Reader(body, flow).read()


def onnx_input_shape(path: Path | str) -> tuple[int, ...] | None:
    """Return the sizes of an ONNX file's first input without the batch; `None` where it leaves one open.

    Raises:
        TracingError: If the file cannot be read.
    """
    sizes = _loaded_sizes(path)
    return tuple(sizes[1:]) if all(sizes[1:]) else None


def onnx_batch_size(path: Path | str) -> int | None:
    """Return the batch of an ONNX file's input; `None` where it leaves it open.

    Raises:
        TracingError: If the file cannot be read.
    """
    sizes = _loaded_sizes(path)
    return sizes[0] or None if sizes else None


def _loaded_sizes(path: Path | str) -> tuple[int, ...]:
    return file_sizes(load_onnx(path).graph)


class _Reader:
    """Numbers the tensors and storages of what a file runs."""

    def __init__(self, body: Body, flow: Flow) -> None:
        self._body = body
        self._flow = flow
        self._tensors: list[TensorInfo] = []
        self._storages: list[Storage] = []
        self._numbers: dict[Value, int] = {}
        self._absent: int | None = None

    def read(self) -> OperatorGraph:
        """Return the graph."""
        inputs = tuple(self._input(value) for value in self._flow.inputs)
        parameters, buffers = self._weights()
        operators = tuple(self._operators({**parameters, **buffers}))
        outputs = tuple(self._number(value) for value in self._flow.outputs)
        return OperatorGraph(
            operators,
            tuple(self._tensors),
            tuple(self._storages),
            inputs,
            outputs,
            parameters,
            buffers,
            self._batch_size(),
        )

    def _input(self, value: Value) -> int:
        if value.sizes is None:
            raise TracingError(f"its input {value.name!r} is not a tensor of known sizes")
        return self._add(value, StorageKind.INPUT)

    def _batch_size(self) -> int:
        """Return the first size of the first input; a recurrent operator that reads it takes the second one."""
        if not self._flow.inputs:
            return 1
        first = self._flow.inputs[0]
        sizes = first.sizes or (1,)
        for step in self._flow.steps:
            is_recurrent = step.node.key[1] in {"LSTM", "GRU", "RNN"} and not step.node.attributes.get("layout", 0)
            if is_recurrent and step.inputs[0] is not None and step.inputs[0].origin is first:
                return sizes[1]
        return max(1, sizes[0]) if sizes else 1

    def _weights(self) -> tuple[dict[str, int], dict[str, int]]:
        constants = list(self._body.all_constants())
        chosen = parameters_among(constants, self._flow.steps)
        parameters: dict[str, int] = {}
        buffers: dict[str, int] = {}
        for value in constants:
            is_parameter = value in chosen
            number = self._add(value, StorageKind.PARAMETER if is_parameter else StorageKind.BUFFER)
            if is_parameter:
                self._tensors[number] = replace(self._tensors[number], shape=chosen[value])
            named = parameters if is_parameter else buffers
            named[value.name if value.name not in named else f"{value.name}#{number}"] = number
        return parameters, buffers

    def _operators(self, weights: Mapping[str, int]) -> Iterator[Operator]:
        for step in self._flow.steps:
            domain, op_type = step.node.key
            is_constant = all(value is None or value.is_constant for value in step.inputs)
            in_place = _STORED_IN_PLACE if is_constant else _VIEWS
            source = step.inputs[0] if not domain and op_type in in_place and step.inputs else None
            kind = StorageKind.BUFFER if is_constant and step.inputs else StorageKind.ACTIVATION
            inputs = tuple(self._number(value) for value in step.inputs)
            view_of = None if source is None else self._number(source)
            outputs = tuple(self._add(v, kind, view_of) for v in step.outputs if v is not None)
            if step.is_computed or (is_constant and op_type == "DequantizeLinear"):
                continue
            values = [*step.inputs, *step.outputs]
            yield Operator(
                name=f"{domain or 'onnx'}.{op_type}",
                inputs=inputs,
                outputs=outputs,
                module=_module(step, weights),
                attributes=step.node.attributes,
                has_open_sizes=any(value is not None and value.sizes is None for value in values),
            )

    def _number(self, value: Value | None) -> int:
        """Return the index of a tensor; one that is left out is empty."""
        if value is None:
            if self._absent is None:
                self._absent = self._new(TensorInfo((0,), torch.bool, len(self._storages)), 0, StorageKind.BUFFER)
            return self._absent
        known = self._numbers.get(value.origin)
        return self._add(value.origin, StorageKind.ACTIVATION) if known is None else known

    def _add(self, value: Value, kind: StorageKind, view_of: int | None = None) -> int:
        sizes, element_type = value.sizes, _element_type(value)
        shape = (0,) if sizes is None else sizes  # its size depends on data: an operator with it is marked
        dtype = torch.uint8 if sizes is None and element_type not in _DTYPES else self._dtype(element_type, value.name)
        bits = _BITS.get(element_type, 8 * dtype.itemsize)
        n_bytes = -(-math.prod(shape) * bits // 8)
        storage = len(self._storages) if view_of is None else self._tensors[view_of].storage
        number = self._numbers[value] = self._new(TensorInfo(shape, dtype, storage), n_bytes, kind)
        return number

    def _new(self, tensor: TensorInfo, n_bytes: int, kind: StorageKind) -> int:
        if tensor.storage == len(self._storages):
            self._storages.append(Storage(n_bytes, kind))
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _dtype(self, element_type: int, name: str) -> torch.dtype:
        if element_type not in _DTYPES:
            kind = _TENSOR.DataType.Name(element_type)
            raise TracingError(f"{name!r} holds {kind}, which has no torch type here")
        return _DTYPES[element_type]


def _element_type(value: Value) -> int:
    return 0 if value.type is None else int(value.type.tensor_type.elem_type)


def _module(step: Step, weights: Mapping[str, int]) -> str:
    """Return the module that the exporter names: in the operator's path, else in that of its first weight."""
    parts = step.node.proto.name.strip("/").split("/")
    if len(parts) > 1:
        return ".".join(parts[:-1])
    owners = [value.name.rpartition(".")[0] for value in step.inputs if value is not None and value.name in weights]
    return next((owner for owner in owners if owner), "")
