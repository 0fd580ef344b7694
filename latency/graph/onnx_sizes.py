"""The sizes of an ONNX file's inputs: those that it fixes, and those that are wanted where it leaves them open."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx


def file_sizes(graph: onnx.GraphProto) -> tuple[int, ...]:
    """Return the sizes of the first input, the batch included; 0 where the file leaves one open."""
    return next((tuple(d.dim_value for d in _dimensions(value)) for value in _inputs(graph)), ())


def close_sizes(
    graph: onnx.GraphProto, shape: tuple[int, ...] | None, batch_size: int | None, path: Path
) -> dict[str, onnx.TypeProto]:
    """Write the sizes that are wanted into the inputs, and forget what was derived from open ones.

    Args:
        graph: Of a file; changed.
        shape: Of an image; `None` for the file's own.
        batch_size: First size of the inputs; `None` for the file's own, or 1.
        path: For messages.

    Returns:
        The types that the file told of other tensors, with the same sizes written into them.

    Raises:
        ValueError: If a size is missing, or contradicts the file's.
    """
    named: dict[str, int] = {}
    for position, value in enumerate(_inputs(graph)):
        _close_input(value, shape, batch_size, path, named, is_first=position == 0)
    declared = {}
    for value in (*graph.value_info, *graph.output):
        kind = onnx.TypeProto()
        kind.CopyFrom(value.type)
        for dimension in kind.tensor_type.shape.dim if kind.HasField("tensor_type") else ():
            if dimension.dim_param in named:
                dimension.dim_value = named[dimension.dim_param]
        declared[value.name] = kind
    del graph.value_info[:]
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return declared


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in weights]


def _dimensions(value: onnx.ValueInfoProto) -> Sequence[Any]:
    dimensions: Sequence[Any] = value.type.tensor_type.shape.dim
    for dimension in dimensions:
        if dimension.dim_value < 0:  # what some converters write for an open size
            dimension.ClearField("dim_value")
    return dimensions


def _close_input(
    value: onnx.ValueInfoProto,
    shape: tuple[int, ...] | None,
    batch_size: int | None,
    path: Path,
    named: dict[str, int],
    *,
    is_first: bool,
) -> None:
    """Close one input, and note which sizes its names stand for. Only the first one must be as asked for."""
    dimensions = _dimensions(value)
    is_image = shape is not None and len(dimensions) == len(shape) + 1
    if shape is not None and not is_image and (is_first or not _is_known(dimensions, named)):
        raise ValueError(f"input_shape must have {len(dimensions) - 1} sizes for {path}'s {value.name!r}, got {shape}")
    wanted = list(_wanted(dimensions, shape if is_image else None, batch_size, named))
    for axis, (dimension, size) in enumerate(zip(dimensions, wanted, strict=True)):
        if _is_fixed(dimension, is_image=is_first):
            if is_first and size is not None and dimension.dim_value != size:
                name = "batch_size" if axis == 0 else "input_shape"
                raise ValueError(
                    f"{name} does not fit {path}: size {axis} of its input {value.name!r} is "
                    f"{dimension.dim_value}, not {size}. Give the file's own sizes, or export it with open ones"
                )
            continue
        if size is None:
            raise ValueError(f"input_shape must be given: {path} leaves size {axis} of its input {value.name!r} open")
        if dimension.dim_param:
            named[dimension.dim_param] = size
        dimension.dim_value = size


def _wanted(
    dimensions: Sequence[Any], shape: tuple[int, ...] | None, batch_size: int | None, named: Mapping[str, int]
) -> Iterator[int | None]:
    for axis, dimension in enumerate(dimensions):
        if dimension.dim_param in named:
            yield named[dimension.dim_param]
        elif axis == 0:
            yield batch_size if batch_size is not None or dimension.dim_value else 1
        else:
            yield shape[axis - 1] if shape else None


def _is_known(dimensions: Sequence[Any], named: Mapping[str, int]) -> bool:
    return all(_is_fixed(dimension, is_image=False) or dimension.dim_param in named for dimension in dimensions)


def _is_fixed(dimension: Any, *, is_image: bool) -> bool:
    """Return whether the file tells a size; 0 is one, but some converters write it for an open size of an image."""
    return bool(dimension.dim_value) or (dimension.HasField("dim_value") and not is_image)
