"""Reads the operators of an ONNX file: the same graph that is traced from a torch model, without running anything."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import inliner, numpy_helper, shape_inference

from latency.checks import require_input_shape, require_positive
from latency.errors import TracingError
from latency.graph.operator_graph import Operator, OperatorGraph, Storage, StorageKind, TensorInfo

_DTYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
_STATISTICS = slice(3, 5)  # of BatchNormalization's inputs: running mean and variance
_STANDARD_DOMAINS = ("", "ai.onnx")


def graph_from_onnx(
    path: Path | str, input_shape: tuple[int, ...] | None = None, *, batch_size: int = 1
) -> OperatorGraph:
    """Return the operators of an ONNX file as they stand in it, before any runtime fuses them.

    Operators are called `onnx.Conv` and so on, those of other domains by their domain. Modules are those that the
    exporter wrote into names of operators or weights, empty where it wrote none. Reshapes are views of their input.
    Weights are read by their shapes alone, so external data need not be there. Parameters are the floating-point ones;
    integers (indices, and the weights of a quantised file) are buffers.

    Args:
        path: The file.
        input_shape: `(C, H, W)`, without the batch; needed only where the file leaves sizes open.
        batch_size: The batch, where the file leaves its first size open.

    Raises:
        ValueError: If a size is not positive, or contradicts the file's.
        TracingError: If the file cannot be read or leaves a shape open that this needs.
    """
    require_positive(batch_size=batch_size)
    shape = None if input_shape is None else require_input_shape(input_shape)
    try:
        model = onnx.load(path, load_external_data=False)
        model = inliner.inline_local_functions(model)
        _close_sizes(model.graph, shape, batch_size, Path(path))
        model = shape_inference.infer_shapes(model, data_prop=True)
    except ValueError:
        raise
    except Exception as fault:
        raise TracingError(f"cannot read {path} as ONNX: {fault}") from fault
    return _Reader(model.graph, Path(path)).read()


def onnx_input_shape(path: Path | str) -> tuple[int, ...] | None:
    """Return the sizes of an ONNX file's input without the batch; `None` where it leaves one open.

    Raises:
        TracingError: If the file cannot be read.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as fault:
        raise TracingError(f"cannot read {path} as ONNX: {fault}") from fault
    sizes = [dimension.dim_value for given in _inputs(graph)[:1] for dimension in _dimensions(given)[1:]]
    return tuple(sizes) if sizes and all(sizes) else None


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _dimensions(value: onnx.ValueInfoProto) -> Sequence[Any]:
    dimensions: Sequence[Any] = value.type.tensor_type.shape.dim
    return dimensions


def _close_sizes(graph: onnx.GraphProto, shape: tuple[int, ...] | None, batch_size: int, path: Path) -> None:
    """Write the sizes that are wanted into the inputs, and forget what was derived from open ones."""
    for value in _inputs(graph):
        dimensions = _dimensions(value)
        if shape is not None and len(dimensions) != len(shape) + 1:
            raise ValueError(
                f"input_shape must have {len(dimensions) - 1} sizes for {path}'s {value.name!r}, got {shape}"
            )
        for axis, dimension in enumerate(dimensions):
            wanted = batch_size if axis == 0 else shape[axis - 1] if shape else None
            if dimension.dim_value == 0 and wanted is None:
                raise ValueError(
                    f"input_shape must be given: {path} leaves size {axis} of its input {value.name!r} open"
                )
            if dimension.dim_value not in (0, wanted or dimension.dim_value):
                name = "batch_size" if axis == 0 else "input_shape"
                raise ValueError(
                    f"{name} does not fit {path}: size {axis} of its input {value.name!r} is "
                    f"{dimension.dim_value}, not {wanted}. Counts are of one sample: give the file's own "
                    "sizes to measure it, and export it with an open batch to count it too"
                )
            dimension.dim_value = wanted or dimension.dim_value
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


class _Reader:
    """Numbers the tensors and storages of a graph whose shapes are known."""

    def __init__(self, graph: onnx.GraphProto, path: Path) -> None:
        self._graph = graph
        self._path = path
        self._shapes = {
            value.name: value.type.tensor_type for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._tensors: list[TensorInfo] = []
        self._storages: list[Storage] = []
        self._numbers: dict[str, int] = {}

    def read(self) -> OperatorGraph:
        """Return the graph."""
        inputs = tuple(self._declared(value.name, StorageKind.INPUT) for value in _inputs(self._graph))
        parameters, buffers = self._weights()
        operators = tuple(self._operators({**parameters, **buffers}))
        return OperatorGraph(
            operators,
            tuple(self._tensors),
            tuple(self._storages),
            inputs,
            tuple(self._numbers[value.name] for value in self._graph.output),
            parameters,
            buffers,
            self._tensors[inputs[0]].shape[0] if inputs and self._tensors[inputs[0]].shape else 1,
        )

    def _weights(self) -> tuple[dict[str, int], dict[str, int]]:
        statistics = {
            name
            for node in self._graph.node
            if node.op_type == "BatchNormalization"
            for name in node.input[_STATISTICS]
        }
        parameters: dict[str, int] = {}
        buffers: dict[str, int] = {}
        for tensor in self._graph.initializer:
            dtype = self._dtype(tensor.data_type, tensor.name)
            is_buffer = tensor.name in statistics or not dtype.is_floating_point
            kind = StorageKind.BUFFER if is_buffer else StorageKind.PARAMETER
            number = self._add(tensor.name, tuple(tensor.dims), dtype, kind)
            (buffers if is_buffer else parameters)[tensor.name] = number
        return parameters, buffers

    def _operators(self, weights: Mapping[str, int]) -> Iterator[Operator]:
        for node in self._graph.node:
            is_standard = node.domain in _STANDARD_DOMAINS
            if is_standard and node.op_type == "Constant":
                self._constant(node)
                continue
            inputs = tuple(self._numbers[name] for name in node.input if name)
            source = inputs[0] if is_standard and node.op_type in _VIEWS else None
            kind = StorageKind.ACTIVATION
            outputs = tuple(self._declared(name, kind, source, node) for name in node.output if name)
            name = f"{'onnx' if is_standard else node.domain}.{node.op_type}"
            attributes = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}
            yield Operator(name, inputs, outputs, _module(node, weights), attributes)

    def _constant(self, node: onnx.NodeProto) -> None:
        tensors = [a.t for a in node.attribute if a.name == "value"]
        if tensors:
            shape, dtype = tuple(tensors[0].dims), self._dtype(tensors[0].data_type, node.output[0])
            self._add(node.output[0], shape, dtype, StorageKind.BUFFER)
        else:
            self._declared(node.output[0], StorageKind.BUFFER, None, node)

    def _declared(
        self, name: str, kind: StorageKind, view_of: int | None = None, node: onnx.NodeProto | None = None
    ) -> int:
        """Add a tensor whose shape the file or the inference tells."""
        declared = self._shapes.get(name)
        if (
            declared is None
            or not declared.HasField("shape")
            or not all(d.HasField("dim_value") for d in declared.shape.dim)
        ):
            place = f"operator {node.name!r} ({node.op_type})" if node else "its input"
            raise TracingError(
                f"cannot trace {self._path}: the shape of {name!r}, from {place}, depends on data or on an operator "
                "that ONNX's shape inference does not know. Export the model with fixed sizes, or profile the model "
                "that it was exported from"
            )
        shape = tuple(dimension.dim_value for dimension in declared.shape.dim)
        return self._add(name, shape, self._dtype(declared.elem_type, name), kind, view_of)

    def _add(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, kind: StorageKind, view_of: int | None = None
    ) -> int:
        if view_of is None:
            storage = len(self._storages)
            self._storages.append(Storage(math.prod(shape) * dtype.itemsize, kind))
        else:
            storage = self._tensors[view_of].storage
        number = self._numbers[name] = len(self._tensors)
        self._tensors.append(TensorInfo(shape, dtype, storage))
        return number

    def _dtype(self, element_type: int, name: str) -> torch.dtype:
        if element_type not in _DTYPES:
            kind = onnx.TensorProto.DataType.Name(element_type)
            raise TracingError(f"cannot trace {self._path}: {name!r} holds {kind}, which has no torch type here")
        return _DTYPES[element_type]


def _module(node: onnx.NodeProto, weights: Mapping[str, int]) -> str:
    """Return the module that the exporter names: in the operator's path, else in that of its first weight."""
    parts = node.name.strip("/").split("/")
    if len(parts) > 1:
        return ".".join(parts[:-1])
    owners = [name.rpartition(".")[0] for name in node.input if name in weights]
    return next((owner for owner in owners if owner), "")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value).tolist()
    if isinstance(value, onnx.GraphProto):
        return value.name
    return list(value) if isinstance(value, list | tuple) else value
