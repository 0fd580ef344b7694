"""The sizes of what an ONNX node makes: by ONNX's own inference, with numbers where they are known before it runs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from latency.graph.onnx_bodies import Node, Value, closed_sizes, tensor_type

_MAX_COMPUTED_ELEMENTS = 4096

# Arithmetic of sizes, computed as soon as its arguments are known. Products and convolutions of constants are not
# among them: a runtime computes these, and they are counted.
_COMPUTED_NAMES = """
    Abs Add And Cast CastLike Ceil Clip Compress Concat ConstantOfShape CumSum Div Equal Expand EyeLike Flatten Floor
    Gather GatherElements GatherND Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg NonZero Not
    OneHot Or Pad Pow Range Reciprocal ReduceMax ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements
    ScatterND Shape Sign Size Slice Split Sqrt Squeeze Sub Tile Transpose Trilu Unique Unsqueeze Where Xor
    BlackmanWindow HammingWindow HannWindow
"""
_COMPUTED = frozenset(_COMPUTED_NAMES.split())
_GROWS_WITH_DATA = frozenset({"NonZero", "Compress", "Unique"})  # no larger than their input

# What onnxruntime's own operators are, as far as sizes go.
_STANDARD_TWINS = {"FusedConv": "Conv", "FusedGemm": "Gemm", "GemmFastGelu": "MatMul", "MatMulIntegerToFloat": "MatMul"}


def _like(position: int) -> Callable[[Node, Sequence[tuple[int, ...]]], tuple[int, ...]]:
    return lambda node, sizes: sizes[position]


def _broadcast(*positions: int) -> Callable[[Node, Sequence[tuple[int, ...]]], tuple[int, ...]]:
    return lambda node, sizes: np.broadcast_shapes(*(sizes[position] for position in positions))


def _fused_matmul(node: Node, sizes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    left, right = sizes[0], sizes[1]
    rows = left[-1] if node.attributes.get("transA", 0) else left[-2]
    columns = right[-2] if node.attributes.get("transB", 0) else right[-1]
    return (*np.broadcast_shapes(left[:-2], right[:-2]), rows, columns)


def _quantised_gemm(node: Node, sizes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    left, right = sizes[0], sizes[3]
    return (
        left[1 if node.attributes.get("transA", 0) else 0],
        right[0 if node.attributes.get("transB", 0) else 1],
    )


def _quantised_global_pooling(node: Node, sizes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    batch, *rest = sizes[0]
    n_spatial = len(rest) - 1
    if node.attributes.get("channels_last", 0):
        return (batch, *[1] * n_spatial, rest[-1])
    return (batch, rest[0], *[1] * n_spatial)


# Sizes of onnxruntime's operators that have no twin, for files that do not tell them.
_RUNTIME_SIZES: dict[str, Callable[[Node, Sequence[tuple[int, ...]]], tuple[int, ...]]] = {
    "Gelu": _like(0),
    "FastGelu": _like(0),
    "QuickGelu": _like(0),
    "BiasGelu": _like(0),
    "BiasAdd": _like(0),
    "BiasSoftmax": _like(0),
    "SkipLayerNormalization": _like(0),
    "SkipSimplifiedLayerNormalization": _like(0),
    "SimplifiedLayerNormalization": _like(0),
    "QuantizeLinear": _like(0),
    "DequantizeLinear": _like(0),
    "QLinearSigmoid": _like(0),
    "QLinearLeakyRelu": _like(0),
    "QLinearSoftmax": _like(0),
    "QLinearAdd": _broadcast(0, 3),
    "QLinearMul": _broadcast(0, 3),
    "QLinearGlobalAveragePool": _quantised_global_pooling,
    "QGemm": _quantised_gemm,
    "FusedMatMul": _fused_matmul,
    "DynamicQuantizeMatMul": lambda node, sizes: (*sizes[0][:-1], sizes[1][-1]),
    "MatMulNBits": lambda node, sizes: (*sizes[0][:-1], int(node.attributes["N"])),
    "MultiHeadAttention": lambda node, sizes: (*sizes[0][:-1], sizes[2][-1]),
    "Attention": lambda node, sizes: (*sizes[0][:-1], sizes[1][-1] // 3),
}
_FLOAT_RESULTS = frozenset({"DequantizeLinear", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"})


class ShapeInference:
    """Infers node by node, with the opsets of a file."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._ir_version = model.ir_version
        self._opsets = list(model.opset_import)
        self._versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}

    def infer(self, node: Node, inputs: Sequence[Value | None]) -> list[onnx.TypeProto | None]:
        """Return the type of each result; `None` for one that is not known."""
        domain, name = node.key
        known: dict[str, onnx.TypeProto] = {}
        if not any(value is not None and value.type is None for value in inputs):
            twin = _STANDARD_TWINS.get(name) if domain == "com.microsoft" else None
            known = self._by_onnx(node, inputs, ("", twin) if twin else (domain, name))
        found = [known.get(output) for output in node.proto.output]
        if domain and found and (found[0] is None or closed_sizes(found[0]) is None):
            found[0] = _by_runtime(node, inputs) or found[0]
        return found

    def _by_onnx(self, node: Node, inputs: Sequence[Value | None], key: tuple[str, str]) -> dict[str, onnx.TypeProto]:
        domain, name = key
        present = [value for value in inputs if value is not None]
        proto = node.proto
        try:
            schema = onnx.defs.get_schema(name, self._versions.get(domain, 1), domain)
            if key != node.key:
                proto = _as_twin(node.proto, name, schema)
            return dict(
                shape_inference.infer_node_outputs(
                    schema,
                    proto,
                    {value.name: value.type for value in present if value.type is not None},
                    {value.name: numpy_helper.from_array(value.data) for value in present if value.data is not None},
                    opset_imports=self._opsets,
                    ir_version=self._ir_version,
                )
            )
        except Exception:  # noqa: BLE001 - onnx raises several kinds, without a base; the size stays open then
            return {}

    def compute(
        self, node: Node, inputs: Sequence[Value | None], types: Sequence[onnx.TypeProto | None]
    ) -> list[np.ndarray | None]:
        """Return the numbers of each result, where these follow from known numbers and are few."""
        unknown: list[np.ndarray | None] = [None] * len(node.proto.output)
        domain, name = node.key
        if domain or name not in _COMPUTED:
            return unknown
        if name in {"Shape", "Size"}:
            return [_sizes_data(node, inputs[0])] if inputs[0] is not None else unknown
        present = [value for value in inputs if value is not None]
        if name == "CastLike":
            present = [present[0], *map(_one_of_its_kind, present[1:])]
        is_small = name in _GROWS_WITH_DATA or all(_is_small(kind) for kind in types)
        if not is_small or any(value.data is None for value in present):
            return unknown
        try:
            return self._run(node.proto, {value.name: value.data for value in present})
        except Exception:  # noqa: BLE001 - what onnx's reference does not compute stays unknown
            return unknown

    def _run(self, proto: onnx.NodeProto, data: dict[str, Any]) -> list[np.ndarray | None]:
        given = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in data.items()
        ]
        names = [name for name in proto.output if name]
        wanted = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names]
        graph = onnx.helper.make_graph([proto], "node", given, wanted)
        model = onnx.helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        results = dict(zip(names, ReferenceEvaluator(model).run(None, data), strict=True))
        return [np.asarray(results[name]) if name in results else None for name in proto.output]


def _one_of_its_kind(value: Value) -> Value:
    """Return a zero in place of a tensor whose element type alone matters."""
    element_type = 0 if value.type is None else value.type.tensor_type.elem_type
    data = np.zeros((), onnx.helper.tensor_dtype_to_np_dtype(element_type)) if element_type else None
    return Value(value.name, value.type, data)


def _as_twin(proto: onnx.NodeProto, name: str, schema: Any) -> onnx.NodeProto:
    """Return the node as ONNX's own operator, without the arguments and attributes that this does not have."""
    twin = onnx.NodeProto()
    twin.CopyFrom(proto)
    twin.op_type, twin.domain = name, ""
    del twin.input[len(schema.inputs) :]
    del twin.attribute[:]
    twin.attribute.extend(attribute for attribute in proto.attribute if attribute.name in schema.attributes)
    return twin


def _by_runtime(node: Node, inputs: Sequence[Value | None]) -> onnx.TypeProto | None:
    rule = _RUNTIME_SIZES.get(node.key[1])
    if rule is None or not inputs or inputs[0] is None or inputs[0].type is None:
        return None
    try:
        sizes = rule(node, [(value and value.sizes) or () for value in inputs])
    except (ValueError, IndexError, KeyError):
        return None
    element_type = inputs[0].type.tensor_type.elem_type
    if node.key[1] in _FLOAT_RESULTS:
        element_type = onnx.TensorProto.FLOAT
    elif node.key[1] == "QuantizeLinear" and len(inputs) > 2 and inputs[2] is not None and inputs[2].type is not None:
        element_type = inputs[2].type.tensor_type.elem_type
    return tensor_type(element_type, sizes)


def _is_small(kind: onnx.TypeProto | None) -> bool:
    sizes = None if kind is None else closed_sizes(kind)
    return sizes is not None and int(np.prod(sizes, dtype=np.int64)) <= _MAX_COMPUTED_ELEMENTS


def _sizes_data(node: Node, value: Value) -> np.ndarray | None:
    if value.sizes is None:
        return None
    if node.key[1] == "Size":
        return np.array(int(np.prod(value.sizes, dtype=np.int64)), dtype=np.int64)
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(value.sizes[start:end], dtype=np.int64)


def most_closed(kinds: Iterable[onnx.TypeProto | None]) -> onnx.TypeProto | None:
    """Return the first type whose sizes are all known, else the first one."""
    found = [kind for kind in kinds if kind is not None]
    return next((kind for kind in found if closed_sizes(kind) is not None), found[0] if found else None)
