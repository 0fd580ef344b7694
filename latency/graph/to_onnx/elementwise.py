"""Operators that treat each number of a tensor alike."""

from typing import Any

import torch

from latency.graph.to_onnx.nodes import Call, Nodes, Translation, Value


def unary(operator: str, **attributes: Any) -> Translation:
    """Return a translation to an operator of one tensor, with these attributes."""
    return lambda nodes, call: nodes.add(operator, call.x, **attributes)


def with_options(operator: str, **names: str) -> Translation:
    """Return a translation whose attributes are arguments of the torch operator: by attribute the argument's name."""
    return lambda nodes, call: nodes.add(
        operator, call.x, **{attribute: float(call[name]) for attribute, name in names.items()}
    )


def binary(operator: str) -> Translation:
    """Return a translation to an operator of two tensors or numbers; comparisons too."""

    def translate(nodes: Nodes, call: Call) -> str:
        first, second = list(call.arguments.values())[:2]
        call.require(call.arguments.get("rounding_mode") is None, "a rounding mode")
        dtype = call.outputs[0].dtype
        if dtype is torch.bool:  # a comparison: computed in the type of what is compared
            dtype = torch.result_type(*(_stand_in(value) for value in (first, second)))
        right = nodes.operand(second, dtype)
        if (alpha := call.arguments.get("alpha", 1)) != 1:
            right = nodes.add("Mul", right, nodes.constant(alpha, dtype))
        return nodes.add(operator, nodes.operand(first, dtype), right)

    return translate


def _stand_in(value: Any) -> Any:
    return torch.empty((1,) * len(value.shape), dtype=value.dtype) if isinstance(value, Value) else value


def not_equal(nodes: Nodes, call: Call) -> str:
    """Write `aten.ne`, which ONNX has no operator for."""
    equal = binary("Equal")(nodes, call)
    assert isinstance(equal, str)  # noqa: S101 - it has one output
    return nodes.add("Not", equal)


def silu(nodes: Nodes, call: Call) -> str:
    """Write x times its sigmoid."""
    return nodes.add("Mul", call.x, nodes.add("Sigmoid", call.x))


def gelu(nodes: Nodes, call: Call) -> str:
    """Write GELU, exactly or by tanh."""
    return nodes.add("Gelu", call.x, approximate=call["approximate"])


def elu(nodes: Nodes, call: Call) -> str:
    """Write ELU without SELU's scales."""
    call.require(call["scale"] == 1 and call["input_scale"] == 1, "a scale")
    return nodes.add("Elu", call.x, alpha=float(call["alpha"]))


def softplus(nodes: Nodes, call: Call) -> str:
    """Write softplus of slope 1."""
    call.require(call["beta"] == 1, "a beta")
    return nodes.add("Softplus", call.x)


def clip(low: str | None, high: str | None) -> Translation:
    """Return a translation to `Clip` by the arguments of these names."""

    def translate(nodes: Nodes, call: Call) -> str:
        limits = [call[name] if name else None for name in (low, high)]
        call.require(not any(isinstance(limit, Value) for limit in limits), "tensors as limits")
        names = ["" if limit is None else nodes.constant(limit, call.x.dtype) for limit in limits]
        return nodes.add("Clip", call.x, *names)

    return translate


def reversed_subtraction(nodes: Nodes, call: Call) -> str:
    """Write `other - x`."""
    call.require(call["alpha"] == 1, "an alpha")
    dtype = call.outputs[0].dtype
    return nodes.add("Sub", nodes.operand(call["other"], dtype), nodes.operand(call.x, dtype))


def reciprocal_root(nodes: Nodes, call: Call) -> str:
    """Write `1 / sqrt(x)`."""
    return nodes.add("Reciprocal", nodes.add("Sqrt", call.x))


def add_product(nodes: Nodes, call: Call) -> str:
    """Write `x + value * tensor1 * tensor2`."""
    product = nodes.add("Mul", call["tensor1"], call["tensor2"])
    if call["value"] != 1:
        product = nodes.add("Mul", product, nodes.constant(call["value"], call.x.dtype))
    return nodes.add("Add", call.x, product)


def where(nodes: Nodes, call: Call) -> str:
    """Write a choice by a mask."""
    dtype = call.outputs[0].dtype
    return nodes.add("Where", call["condition"], *(nodes.operand(call[name], dtype) for name in ("self", "other")))


def masked_fill(nodes: Nodes, call: Call) -> str:
    """Write a number where a mask says so."""
    return nodes.add("Where", call["mask"], nodes.operand(call["value"], call.x.dtype), call.x)


def cast(nodes: Nodes, call: Call) -> str:
    """Write a change of type; of the memory's layout ONNX knows nothing."""
    return nodes.operand(call.x, call.outputs[0].dtype)


def filled(argument: str | None, number: float = 0) -> Translation:
    """Return a translation to a tensor filled with one number: an argument's, or the one given."""
    return lambda nodes, call: nodes.add(
        "Expand",
        nodes.constant(call[argument] if argument else number, call.outputs[0].dtype),
        nodes.sizes(call.shape),
    )


def copy_(nodes: Nodes, call: Call) -> str:
    """Write what overwrites a whole tensor."""
    return nodes.add("Expand", nodes.operand(call["src"], call.x.dtype), nodes.sizes(call.shape))
