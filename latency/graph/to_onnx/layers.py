"""Operators that layers are made of: convolution, norms, attention, pooling, resizing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from latency.graph.to_onnx.nodes import Call, Nodes, Translation


def convolution(nodes: Nodes, call: Call) -> str:
    """Write a convolution or its transpose."""
    weight = call["weight"]
    n_sizes = len(weight.shape) - 2

    def sizes(name: str) -> list[int]:
        return list(call[name]) * (n_sizes if len(call[name]) == 1 else 1)

    options = {
        "kernel_shape": weight.shape[2:],
        "strides": sizes("stride"),
        "pads": sizes("padding") * 2,
        "dilations": sizes("dilation"),
        "group": call["groups"],
    }
    inputs = [value for value in (call["input"], weight, call["bias"]) if value is not None]
    if call["transposed"]:
        return nodes.add("ConvTranspose", *inputs, output_padding=sizes("output_padding"), **options)
    return nodes.add("Conv", *inputs, **options)


def batch_norm(nodes: Nodes, call: Call) -> str:
    """Write a batch normalisation by stored statistics; onnxruntime joins it with the convolution before."""
    call.require(not call["training"], "the batch's own statistics")
    mean, variance = call["running_mean"], call["running_var"]
    scale = call["weight"] or nodes.constant([1.0] * mean.shape[0], torch.float32)
    shift = call["bias"] or nodes.constant([0.0] * mean.shape[0], torch.float32)
    return nodes.add("BatchNormalization", call["input"], scale, shift, mean, variance, epsilon=float(call["eps"]))


def layer_norm(nodes: Nodes, call: Call) -> str:
    """Write a layer normalisation."""
    x, shape = call["input"], call["normalized_shape"]
    scale = call["weight"] or nodes.constant(np.ones(shape), torch.float32)
    others = [call["bias"]] if call["bias"] else []
    return nodes.add("LayerNormalization", x, scale, *others, axis=-len(shape), epsilon=float(call["eps"]))


def group_norm(nodes: Nodes, call: Call) -> str:
    """Write a group normalisation as an instance normalisation of groups: opset 20 has no operator for it."""
    x, n_groups = call["input"], call["group"]
    grouped = nodes.add("Reshape", x, nodes.constant([0, n_groups, -1]))
    ones, zeros = (nodes.constant([number] * n_groups, torch.float32) for number in (1.0, 0.0))
    normal = nodes.add("InstanceNormalization", grouped, ones, zeros, epsilon=float(call["eps"]))
    result = nodes.add("Reshape", normal, nodes.shape_to_reshape(x.shape))
    per_channel = nodes.constant([-1] + [1] * (len(x.shape) - 2))
    for operator, name in (("Mul", "weight"), ("Add", "bias")):
        if call[name]:
            result = nodes.add(operator, result, nodes.add("Reshape", call[name], per_channel))
    return result


def softmax(operator: str) -> Translation:
    """Return a translation to a softmax or its logarithm."""
    return lambda nodes, call: nodes.add(operator, call.x, axis=call["dim"])


def attention(nodes: Nodes, call: Call) -> str:
    """Write scaled dot-product attention as products and a softmax."""
    query, key = call["query"], call["key"]
    scale = call["scale"] or 1 / math.sqrt(query.shape[-1])
    axes = [*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2]
    scaled = nodes.add("Mul", query, nodes.constant(scale, query.dtype))
    scores = nodes.add("MatMul", scaled, nodes.add("Transpose", key, perm=axes))
    if call["is_causal"]:
        mask = torch.full((query.shape[-2], key.shape[-2]), -math.inf).triu(1)
        scores = nodes.add("Add", scores, nodes.constant(mask.tolist(), query.dtype))
    if call["attn_mask"] is not None:
        scores = nodes.add("Add", scores, call["attn_mask"])
    return nodes.add("MatMul", nodes.add("Softmax", scores, axis=-1), call["value"])


def product(nodes: Nodes, call: Call) -> str:
    """Write a matrix product."""
    return nodes.add("MatMul", *list(call.arguments.values())[:2])


def sum_with_product(nodes: Nodes, call: Call) -> str:
    """Write a matrix product with a sum."""
    first, second = list(call.arguments.values())[1:3]
    if len(first.shape) == 2:
        options = {name: float(call[name]) for name in ("alpha", "beta")}
        return nodes.add("Gemm", first, second, call.x, **options)
    call.require(call["beta"] == 1 and call["alpha"] == 1, "factors")
    return nodes.add("Add", nodes.add("MatMul", first, second), call.x)


# Pooling and resizing


def _pool_options(call: Call) -> dict[str, Any]:
    kernel = list(call["kernel_size"])
    return {
        "kernel_shape": kernel,
        "strides": list(call["stride"]) or kernel,
        "pads": _both(call["padding"]),
        "ceil_mode": int(call["ceil_mode"]),
    }


def _both(sizes: Sequence[int]) -> list[int]:
    pair = list(sizes) * (2 if len(sizes) == 1 else 1)
    return pair * 2


def max_pool(nodes: Nodes, call: Call) -> str:
    """Write a maximum pooling; the places of the maxima have no translation."""
    return nodes.add("MaxPool", call.x, dilations=_both(call["dilation"])[:2], **_pool_options(call))


def average_pool(nodes: Nodes, call: Call) -> str:
    """Write an average pooling."""
    call.require(call["divisor_override"] is None, "a divisor")
    return nodes.add("AveragePool", call.x, count_include_pad=int(call["count_include_pad"]), **_pool_options(call))


def adaptive_average_pool(nodes: Nodes, call: Call) -> str:
    """Write an average pooling to a size that divides the input's."""
    sizes = list(zip(call.x.shape[-2:], call["output_size"], strict=True))
    call.require(all(size % target == 0 for size, target in sizes), "windows of several sizes")
    window = [size // target for size, target in sizes]
    return nodes.add("AveragePool", call.x, kernel_shape=window, strides=window)


def resize(mode: str, *, coordinates: str | None = None, **options: Any) -> Translation:
    """Return a translation to an interpolation, by default between the centres of pixels."""

    def translate(nodes: Nodes, call: Call) -> str:
        aligned = "align_corners" if call.arguments.get("align_corners") else "half_pixel"
        given = [call.arguments.get(name) for name in ("scales_h", "scales_w")]
        # As torch's exporter writes it: factors where the model gave them, else sizes.
        scales = nodes.constant([1.0, 1.0, *given], torch.float32) if all(given) else ""
        sizes = [] if scales else [nodes.sizes(call.shape)]
        return nodes.add(
            "Resize",
            call.x,
            *("", scales, *sizes),
            mode=mode,
            coordinate_transformation_mode=coordinates or aligned,
            **options,
        )

    return translate


def pad(mode: str) -> Translation:
    """Return a translation to a padding."""

    def translate(nodes: Nodes, call: Call) -> str:
        widths = list(call["pad" if mode == "constant" else "padding"])
        n_before = len(call.x.shape) - len(widths) // 2
        starts, ends = widths[-2::-2], widths[-1::-2]  # torch begins with the last dimension
        pads = nodes.constant([0] * n_before + starts + [0] * n_before + ends)
        value = [nodes.constant(call["value"], call.x.dtype)] if mode == "constant" else []
        return nodes.add("Pad", call.x, pads, *value, mode=mode)

    return translate
