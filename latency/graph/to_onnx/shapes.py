"""Operators that give tensors another shape, take parts of them, or sum them up."""

import torch

from latency.graph.to_onnx.nodes import Call, Nodes, Translation, depends_on_batch


def reshape(nodes: Nodes, call: Call) -> str:
    """Write whatever gives the same numbers in the same order another shape."""
    return nodes.add("Reshape", call.x, nodes.shape_to_reshape(call.shape))


def same(nodes: Nodes, call: Call) -> str:
    """Write nothing: the result is the argument."""
    return call.x.name


def expand(nodes: Nodes, call: Call) -> str:
    """Write a repetition along dimensions of size 1."""
    return call.x.name if call.shape == call.x.shape else nodes.add("Expand", call.x, nodes.sizes(call.shape))


def transpose(nodes: Nodes, call: Call) -> str:
    """Write any permutation of dimensions."""
    n = len(call.x.shape)
    order = list(range(n))
    if "dims" in call.arguments:
        order = [dim % n for dim in call["dims"]]
    elif n > 1:  # `aten.t` names no dimensions
        first, second = call.arguments.get("dim0", 0) % n, call.arguments.get("dim1", 1) % n
        order[first], order[second] = second, first
    return nodes.add("Transpose", call.x, perm=order)


def concat(nodes: Nodes, call: Call) -> str:
    """Write a concatenation."""
    return nodes.add("Concat", *_cast_all(nodes, call), axis=call["dim"])


def stack(nodes: Nodes, call: Call) -> str:
    """Write a concatenation along a new dimension."""
    axis = nodes.constant([call["dim"]])
    return nodes.add("Concat", *(nodes.add("Unsqueeze", t, axis) for t in _cast_all(nodes, call)), axis=call["dim"])


def _cast_all(nodes: Nodes, call: Call) -> list[str]:
    # torch leaves empty one-dimensional tensors out, whatever the shapes of the others.
    values = [value for value in call["tensors"] if value.shape != (0,)]
    return [nodes.operand(value, call.outputs[0].dtype) for value in values]


def split(nodes: Nodes, call: Call) -> tuple[str, ...]:
    """Write a split by the sizes of its results."""
    axis = call["dim"] % len(call.x.shape)
    call.require(not depends_on_batch(call.x.shape[axis]), "the batch split")
    sizes = nodes.constant([part.shape[axis] for part in call.outputs])
    return nodes.add_many("Split", call.x, sizes, n_outputs=len(call.outputs), axis=axis)


def unbind(nodes: Nodes, call: Call) -> tuple[str, ...]:
    """Write a split into single entries."""
    parts = nodes.add_many(
        "Split", call.x, nodes.constant([1] * len(call.outputs)), n_outputs=len(call.outputs), axis=call["dim"]
    )
    axis = nodes.constant([call["dim"]])
    return tuple(nodes.add("Squeeze", part, axis) for part in parts)


def slice_(nodes: Nodes, call: Call) -> str:
    """Write a slice."""
    start, end = call["start"] or 0, call["end"]
    end = 2**63 - 1 if end is None else end
    return nodes.add("Slice", call.x, *(nodes.constant([size]) for size in (start, end, call["dim"], call["step"])))


def select(nodes: Nodes, call: Call) -> str:
    """Write the choice of one entry."""
    return nodes.add("Gather", call.x, nodes.constant(call["index"]), axis=call["dim"])


def index(nodes: Nodes, call: Call) -> str:
    """Write a choice of entries along one dimension."""
    given = [(axis, index) for axis, index in enumerate(call["indices"]) if index is not None]
    is_one = len(given) == 1 and given[0][1].dtype is torch.int64
    call.require(is_one, "several indices or a mask")
    axis, index = given[0]
    return nodes.add("Gather", call.x, index, axis=axis)


def index_select(nodes: Nodes, call: Call) -> str:
    """Write a choice of entries along a given dimension."""
    return nodes.add("Gather", call.x, call["index"], axis=call["dim"])


def roll(nodes: Nodes, call: Call) -> str:
    """Write a cyclic shift as slices put together the other way round."""
    call.require(len(call["dims"]) > 0, "no dimensions")
    result, low, high = call.x.name, nodes.constant([0]), nodes.constant([2**63 - 1])
    for shift, dim in zip(call["shifts"], call["dims"], strict=True):
        axis, cut = nodes.constant([dim]), nodes.constant([-shift % call.x.shape[dim]])
        back, front = (nodes.add("Slice", result, *ends, axis) for ends in ((cut, high), (low, cut)))
        result = nodes.add("Concat", back, front, axis=dim)
    return result


def repeat(nodes: Nodes, call: Call) -> str:
    """Write a repetition."""
    n_new = len(call["repeats"]) - len(call.x.shape)
    x = nodes.add("Reshape", call.x, nodes.shape_to_reshape([1] * n_new + list(call.x.shape))) if n_new else call.x
    return nodes.add("Tile", x, nodes.sizes(call["repeats"]))


def depth_to_space(nodes: Nodes, call: Call) -> str:
    """Write a pixel shuffle."""
    return nodes.add("DepthToSpace", call.x, blocksize=call["upscale_factor"], mode="CRD")


def space_to_depth(nodes: Nodes, call: Call) -> str:
    """Write a pixel unshuffle, whose channels `SpaceToDepth` orders otherwise."""
    (b, c, h, w), n = call.x.shape, call["downscale_factor"]
    cells = nodes.add("Reshape", call.x, nodes.shape_to_reshape([b, c, h // n, n, w // n, n]))
    return nodes.add(
        "Reshape", nodes.add("Transpose", cells, perm=[0, 1, 3, 5, 2, 4]), nodes.shape_to_reshape(call.shape)
    )


def shuffle_channels(nodes: Nodes, call: Call) -> str:
    """Write an exchange of channels between groups."""
    b, c, *sizes = call.x.shape
    parts = nodes.add("Reshape", call.x, nodes.shape_to_reshape([b, call["groups"], c // call["groups"], *sizes]))
    turned = nodes.add("Transpose", parts, perm=[0, 2, 1, *range(3, 3 + len(sizes))])
    return nodes.add("Reshape", turned, nodes.shape_to_reshape(call.x.shape))


def reduce(operator: str) -> Translation:
    """Return a translation to a reduction over some or all dimensions."""

    def translate(nodes: Nodes, call: Call) -> str:
        dims = call.arguments.get("dim")
        dims = [dims] if isinstance(dims, int) else list(dims or range(len(call.x.shape)))
        keepdims = int(call.arguments.get("keepdim", False))
        x = nodes.operand(call.x, call.outputs[0].dtype)
        return nodes.add(operator, x, nodes.constant(dims), keepdims=keepdims)

    return translate


def norm(nodes: Nodes, call: Call) -> str:
    """Write a vector norm of order 1 or 2."""
    call.require(call["ord"] in (1, 2), "such an order")
    result = reduce(f"ReduceL{int(call['ord'])}")(nodes, call)
    assert isinstance(result, str)  # noqa: S101 - it has one output
    return result
