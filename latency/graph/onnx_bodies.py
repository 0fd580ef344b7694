"""The nodes of an ONNX file in an order in which they can run, and its constants, wherever they are written down."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from latency.errors import TracingError

_MAX_KNOWN_ELEMENTS = 4096  # of constants whose numbers are read: sizes, axes and bounds are smaller
_CONSTANT_VALUES: dict[str, int] = {
    "value_float": onnx.TensorProto.FLOAT,
    "value_floats": onnx.TensorProto.FLOAT,
    "value_int": onnx.TensorProto.INT64,
    "value_ints": onnx.TensorProto.INT64,
    "value_string": onnx.TensorProto.STRING,
    "value_strings": onnx.TensorProto.STRING,
}


@dataclass(eq=False)
class Value:
    """A tensor of a file.

    Attributes:
        name: As the file calls it.
        type: What is known of its element type and sizes; `None` for nothing.
        data: Its numbers, where they are known before anything runs and are few.
        is_constant: Whether it depends on constants of the file alone.
        alias_of: The tensor that this is, where a body calls it by another name.
    """

    name: str
    type: onnx.TypeProto | None
    data: np.ndarray | None = None
    is_constant: bool = False
    alias_of: "Value | None" = None

    @property
    def origin(self) -> "Value":
        """The tensor that this is, whatever it is called where it is read."""
        return self.alias_of or self

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """Its sizes; `None` where one of them is open or it is no tensor."""
        return None if self.type is None else closed_sizes(self.type)


@dataclass(frozen=True)
class Node:
    """A node with its attributes as plain values, except for graphs, which are bodies.

    Attributes:
        proto: As it stands in the file.
        attributes: Those that are no graphs.
        bodies: Graphs that it runs: branches of an `If`, the body of a `Loop`.
    """

    proto: onnx.NodeProto
    attributes: Mapping[str, Any]
    bodies: Mapping[str, "Body"]

    @property
    def key(self) -> tuple[str, str]:
        """Its domain, empty for ONNX's own, and its operator."""
        domain = self.proto.domain
        return ("" if domain == "ai.onnx" else domain), self.proto.op_type


@dataclass(frozen=True)
class Body:
    """A graph: that of the file, or one that a node runs.

    Attributes:
        nodes: Each after those whose results it reads. Nodes that only hold a constant are not among them.
        constants: Initialisers and constants by name.
        inputs: What must be given to it.
        outputs: Names of its results.
        declared: Types that the file tells, by name.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Value]
    inputs: tuple[onnx.ValueInfoProto, ...]
    outputs: tuple[str, ...]
    declared: Mapping[str, onnx.TypeProto]

    def all_constants(self) -> Iterator[Value]:
        """Yield the constants of this graph and of those that its nodes run."""
        yield from self.constants.values()
        for node in self.nodes:
            for body in node.bodies.values():
                yield from body.all_constants()


def read_body(graph: onnx.GraphProto) -> Body:
    """Return a graph with its nodes sorted.

    Raises:
        TracingError: If nodes wait for each other, or read what nobody makes.
    """
    constants = dict(_initializers(graph))
    nodes = []
    for proto in graph.node:
        if proto.op_type == "Constant" and proto.domain in {"", "ai.onnx"}:
            constants[proto.output[0]] = _constant(proto)
        else:
            nodes.append(_node(proto))
    return Body(
        nodes=tuple(_sorted(nodes)),
        constants=constants,
        inputs=tuple(value for value in graph.input if value.name not in constants),
        outputs=tuple(value.name for value in graph.output),
        declared={value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input)},
    )


def closed_sizes(kind: onnx.TypeProto) -> tuple[int, ...] | None:
    """Return the sizes of a tensor's type; `None` where one is open or it is no tensor's."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dimensions = kind.tensor_type.shape.dim
    if not all(dimension.HasField("dim_value") for dimension in dimensions):
        return None
    return tuple(dimension.dim_value for dimension in dimensions)


def tensor_type(element_type: int, sizes: Sequence[int]) -> onnx.TypeProto:
    """Return the type of a tensor of these sizes."""
    return onnx.helper.make_tensor_type_proto(element_type, sizes)


def small_array(tensor: onnx.TensorProto) -> np.ndarray | None:
    """Return the numbers of a tensor; `None` where they are many or lie in another file."""
    n_elements = int(np.prod(tensor.dims, dtype=np.int64))
    if n_elements > _MAX_KNOWN_ELEMENTS or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    return numpy_helper.to_array(tensor)


def _initializers(graph: onnx.GraphProto) -> Iterator[tuple[str, Value]]:
    for tensor in graph.initializer:
        yield tensor.name, _value(tensor.name, tensor)
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, _sparse(sparse.values.name, sparse)


def _value(name: str, tensor: onnx.TensorProto) -> Value:
    return Value(name, tensor_type(tensor.data_type, tensor.dims), small_array(tensor), is_constant=True)


def _sparse(name: str, sparse: onnx.SparseTensorProto) -> Value:
    # onnxruntime fills the zeros in when it loads a file: what runs is the dense tensor.
    return Value(name, tensor_type(sparse.values.data_type, sparse.dims), is_constant=True)


def _constant(node: onnx.NodeProto) -> Value:
    name, attribute = node.output[0], node.attribute[0]
    if attribute.name == "value":
        return _value(name, attribute.t)
    if attribute.name == "sparse_value":
        return _sparse(name, attribute.sparse_tensor)
    element_type = _CONSTANT_VALUES[attribute.name]
    held = onnx.helper.get_attribute_value(attribute)
    if element_type == onnx.TensorProto.STRING:
        return Value(name, tensor_type(element_type, np.shape(held)), is_constant=True)
    data = np.array(held, dtype=onnx.helper.tensor_dtype_to_np_dtype(element_type))
    return Value(name, tensor_type(element_type, data.shape), data, is_constant=True)


def _node(proto: onnx.NodeProto) -> Node:
    attributes, bodies = {}, {}
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            bodies[attribute.name] = read_body(attribute.g)
        elif not attribute.ref_attr_name:
            attributes[attribute.name] = _plain(onnx.helper.get_attribute_value(attribute))
    return Node(proto, attributes, bodies)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        array = small_array(value)
        return None if array is None else array.tolist()
    if isinstance(value, onnx.SparseTensorProto | onnx.TypeProto):
        return None
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _reads(node: Node) -> set[str]:
    """Return the names that a node needs, those that its bodies take from around them included."""
    names = {name for name in node.proto.input if name}
    for body in node.bodies.values():
        made = {value.name for value in body.inputs} | body.constants.keys()
        made |= {name for inner in body.nodes for name in inner.proto.output}
        inside = set(body.outputs).union(*(_reads(inner) for inner in body.nodes))
        names |= inside - made
    return names


def _sorted(nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield the nodes as they stand in the file, except that each waits for those that make what it reads."""
    makers = {name: index for index, node in enumerate(nodes) for name in node.proto.output if name}
    waits_for = [{makers[name] for name in _reads(node) if name in makers} for node in nodes]
    followers: dict[int, list[int]] = {}
    for index, before in enumerate(waits_for):
        for maker in before:
            followers.setdefault(maker, []).append(index)
    ready = [index for index, before in enumerate(waits_for) if not before]
    n_done = 0
    while ready:
        index = heapq.heappop(ready)
        n_done += 1
        yield nodes[index]
        for follower in followers.get(index, ()):
            waits_for[follower].discard(index)
            if not waits_for[follower]:
                heapq.heappush(ready, follower)
    if n_done < len(nodes):
        stuck = next(node.proto for node, before in zip(nodes, waits_for, strict=True) if before)
        raise TracingError(f"operators wait for each other in a circle, {stuck.name!r} ({stuck.op_type}) among them")
