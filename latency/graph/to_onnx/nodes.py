"""An ONNX graph in the making, and a torch operator that is to go into it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from latency.errors import UntranslatedOperatorError

OPSET_VERSION = 20

TRACED_BATCH = 1009
"""The batch that is traced: a prime, so that a size is a multiple of the batch where it is one of this number."""


@dataclass(frozen=True)
class Value:
    """A tensor of the ONNX graph.

    Attributes:
        name: In the graph.
        shape: For the batch that was traced.
        dtype: Its element type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Call:
    """A torch operator to be translated.

    Attributes:
        name: Such as `"aten.relu"`.
        arguments: All of its schema by name, defaults filled in, with a `Value` in place of each tensor.
        outputs: Shapes and types of its results; their names are not known yet.
    """

    name: str
    arguments: Mapping[str, Any]
    outputs: tuple[Value, ...]

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    @property
    def x(self) -> Value:
        """The first argument, a tensor."""
        value: Value = next(iter(self.arguments.values()))
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first result."""
        return self.outputs[0].shape

    def require(self, holds: bool, what: str) -> None:
        """Refuse a use that has no translation here."""
        if not holds:
            raise UntranslatedOperatorError(f"{self.name} with {what} has no translation")


class Nodes:
    """Collects the nodes and the constants of an ONNX graph.

    Args:
        input_name: Of the graph's input, which tells the batch.
    """

    def __init__(self, input_name: str) -> None:
        self._input_name = input_name
        self._batch_name: str | None = None
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, operator: str, *inputs: Value | str, **attributes: Any) -> str:
        """Append a node with one output and return that one's name."""
        return self.add_many(operator, *inputs, n_outputs=1, **attributes)[0]

    def add_many(self, operator: str, *inputs: Value | str, n_outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Append a node and return the names of its outputs."""
        names = [value.name if isinstance(value, Value) else value for value in inputs]
        outputs = [f"{operator.lower()}_{len(self.nodes)}_{index}" for index in range(n_outputs)]
        self.nodes.append(onnx.helper.make_node(operator, names, outputs, **attributes))
        return tuple(outputs)

    def constant(self, values: Any, dtype: torch.dtype = torch.int64) -> str:
        """Return the name of a new constant."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = torch.tensor(values, dtype=dtype).numpy()
        return name

    def sizes(self, shape: Sequence[int]) -> str:
        """Return the name of a one-dimensional tensor with these sizes, for a batch of any size."""
        if not any(map(depends_on_batch, shape)):
            return self.constant(shape)
        parts = [self._size(size) for size in shape]
        return self.add("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def shape_to_reshape(self, shape: Sequence[int]) -> str:
        """Return the name of a shape for `Reshape`, which finds one size out itself."""
        if sum(map(depends_on_batch, shape)) > 1:
            return self.sizes(shape)
        return self.constant([-1 if depends_on_batch(size) else size for size in shape])

    def _size(self, size: int) -> str:
        if not depends_on_batch(size):
            return self.constant([size])
        if self._batch_name is None:
            self._batch_name = self.add("Shape", self._input_name, start=0, end=1)
        n = size // TRACED_BATCH
        return self._batch_name if n == 1 else self.add("Mul", self._batch_name, self.constant([n]))

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """Return the name of a tensor or number in the type that an operator computes in."""
        if not isinstance(value, Value):
            return self.constant(value, dtype)
        return value.name if value.dtype is dtype else self.add("Cast", value, to=onnx_type(dtype))


Translation = Callable[[Nodes, Call], str | tuple[str, ...]]


def depends_on_batch(size: int) -> bool:
    """Return whether a size of the traced graph is a multiple of the batch."""
    return size > 0 and size % TRACED_BATCH == 0


def onnx_type(dtype: torch.dtype) -> int:
    """Return ONNX's number of an element type."""
    number: int = onnx.helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=dtype).numpy().dtype)
    return number
