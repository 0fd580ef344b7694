"""The operators that one inference of a model runs: what counting, lifetimes and predictors read."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch._ops import OpOverload


class StorageKind(StrEnum):
    """What a piece of memory is there for."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    INPUT = "input"
    ACTIVATION = "activation"
    GRADIENT = "gradient"
    OPTIMIZER_STATE = "optimizer_state"


@dataclass(frozen=True)
class Storage:
    """A piece of memory; views of a tensor and the results of in-place operators share one.

    Attributes:
        n_bytes: Its size, without an allocator's rounding.
        kind: What it holds.
    """

    n_bytes: int
    kind: StorageKind


@dataclass(frozen=True)
class TensorInfo:
    """A tensor without its numbers.

    Attributes:
        shape: With the batch, where it has one.
        dtype: Its element type.
        storage: Index in `OperatorGraph.storages`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: int

    @property
    def n_elements(self) -> int:
        """The product of the sizes."""
        return functools.reduce(lambda product, size: product * size, self.shape, 1)


@dataclass(frozen=True)
class TensorReference:
    """Stands for a tensor in the arguments of an `OperatorCall`.

    Attributes:
        tensor: Index in `OperatorGraph.tensors`.
    """

    tensor: int


@dataclass(frozen=True)
class OperatorCall:
    """What it takes to run an operator again on other numbers.

    Attributes:
        function: To be called.
        args: With a `TensorReference` in place of each tensor, also within lists.
        kwargs: The same.
    """

    function: OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Operator:
    """One call of an operator.

    Attributes:
        name: Without the overload, e.g. `"aten.convolution"`.
        inputs: Indices in `OperatorGraph.tensors`, in the order of the arguments, lists flattened.
        outputs: Indices in `OperatorGraph.tensors`.
        module: Dotted path of the innermost module that it ran in; empty for the model itself.
        attributes: The arguments that are no tensors, by name; defaults are left out.
        writes: Those of `inputs` whose numbers it changes.
        call: To run it again; `None` where the graph does not come from torch.
        has_open_sizes: Whether it has an argument or a result whose size depends on data; such a tensor is empty here.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str
    attributes: Mapping[str, Any]
    writes: tuple[int, ...] = ()
    call: OperatorCall | None = None
    has_open_sizes: bool = False


@dataclass(frozen=True)
class OperatorGraph:
    """The operators of one inference, in the order in which they run.

    Attributes:
        operators: Views are operators too.
        tensors: All tensors that were an argument or a result; parameters and buffers also when unused.
        storages: The memory that the tensors lie in.
        inputs: The tensor that the model was given.
        outputs: The tensors that the model returned.
        parameters: Tensor of each parameter by its dotted name; a shared one stands under its first name.
        buffers: The same for buffers.
        batch_size: That of the input.
        releases: For each storage the index of the operator before which the model's code had let go of it,
            or the number of operators; `None` where nobody saw the code run.
    """

    operators: tuple[Operator, ...]
    tensors: tuple[TensorInfo, ...]
    storages: tuple[Storage, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: Mapping[str, int]
    buffers: Mapping[str, int]
    batch_size: int
    releases: tuple[int, ...] | None = None

    def storage_bytes(self, kind: StorageKind) -> int:
        """Return the bytes of all storages of one kind, shared ones counted once."""
        return sum(storage.n_bytes for storage in self.storages if storage.kind is kind)
