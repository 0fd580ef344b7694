"""Which constants of an ONNX file are a network's parameters."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import onnx

from latency.graph.onnx_bodies import Value
from latency.graph.onnx_flow import Step

_FLOATS = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.COMPLEX64,
        onnx.TensorProto.COMPLEX128,
    }
)

# By operator, the arguments that hold weights whatever they look like: integers, 8-bit floats, single numbers.
_WEIGHTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "DequantizeLinear": (0,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    # of onnxruntime
    "FusedConv": (1, 2),
    "FusedGemm": (1, 2),
    "FusedMatMul": (0, 1),
    "QGemm": (3, 6),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
    "DynamicQuantizeMatMul": (1, 4),
    "MatMulIntegerToFloat": (0, 1, 6),
    "MatMulNBits": (1,),
    "QAttention": (1, 2),
    "DynamicQuantizeLSTM": (1, 2, 3, 7),
}

# By operator, the arguments that are no weights though they are floating-point: statistics, scales, bounds, sizes.
_SETTINGS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "Clip": (1, 2),
    "Pad": (2,),
    "Dropout": (1, 2),
    "OneHot": (2,),
    "Range": (0, 1, 2),
    "NonMaxSuppression": (3, 4),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    # of onnxruntime
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QLinearConcat": tuple(range(0, 64, 3)) + tuple(range(1, 64, 3)) + (3,),
    "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4),
    "QLinearSoftmax": (1, 2, 3, 4),
    "QLinearAveragePool": (1, 2, 3, 4),
    "QLinearGlobalAveragePool": (1, 2, 3, 4),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "MatMulNBits": (2, 3),
    "QAttention": (3, 4, 6, 7),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
}

# These hand their first argument on: what it is there for is seen at those who read the result.
_PASSED_ON = frozenset(
    {
        "Cast",
        "Flatten",
        "Gather",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


def parameters_among(constants: Iterable[Value], steps: Sequence[Step]) -> dict[Value, tuple[int, ...]]:
    """Return the constants that count as parameters, with the sizes of the tensors that they stand for.

    These are the floating-point ones but for statistics, the scales of quantised tensors, bounds and single numbers
    (ONNX writes `x * 0.5` with one; a path of modules in the name tells a learned one); and integers that an operator
    takes for weights, as those of quantised files.
    """
    uses = _Uses(steps)
    packed = {
        step.inputs[1].origin: (int(step.node.attributes["N"]), int(step.node.attributes["K"]))
        for step in steps
        if step.node.key[1] == "MatMulNBits" and step.inputs[1] is not None
    }
    return {value: packed.get(value, value.sizes or ()) for value in constants if _is_parameter(value, uses)}


def _is_parameter(value: Value, uses: "_Uses") -> bool:
    if value.type is None or not value.type.HasField("tensor_type"):
        return False
    found = list(uses.of(value))
    if any(position in _WEIGHTS.get(name, ()) for name, position in found):
        return True
    if value.type.tensor_type.elem_type not in _FLOATS or (math.prod(value.sizes or ()) == 1 and not _has_path(value)):
        return False
    return not found or not all(position in _SETTINGS.get(name, ()) for name, position in found)


def _has_path(value: Value) -> bool:
    """Return whether a constant is called as torch calls parameters: `blocks.0.gain`, not `val_3` or `/blocks/Mul`."""
    return "." in value.name and "/" not in value.name and ":" not in value.name


class _Uses:
    """Who reads a tensor, and as which of its arguments."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._readers: dict[Value, list[tuple[Step, int]]] = defaultdict(list)
        self._scales = set()
        for step in steps:
            for position, value in enumerate(step.inputs):
                if value is not None:
                    self._readers[value.origin].append((step, position))
            if step.node.key[1] == "DynamicQuantizeLinear" and step.outputs[1] is not None:
                self._scales.add(step.outputs[1])

    def of(self, value: Value) -> Iterator[tuple[str, int]]:
        """Yield operators with the position at which they read `value`, also after it was passed on."""
        waiting, seen = [value], {value}
        while waiting:
            for step, position in self._readers.get(waiting.pop(), ()):
                name, result = step.node.key[1], step.outputs[0]
                if name in _PASSED_ON and position == 0 and result is not None:
                    if result not in seen:
                        seen.add(result)
                        waiting.append(result)
                    continue
                # Dynamic quantisation multiplies a weight's scale with that of the activations.
                is_scale = name == "Mul" and any(other and other.origin in self._scales for other in step.inputs)
                yield ("DequantizeLinear", 1) if is_scale else (name, position)
