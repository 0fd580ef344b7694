"""Watches a model run on meta tensors and writes down its operators: nothing is computed."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from latency.checks import is_exported, require_eval_mode
from latency.errors import TracingError
from latency.graph.attention import CpuAttention
from latency.graph.operator_graph import (
    Operator,
    OperatorCall,
    OperatorGraph,
    Storage,
    StorageKind,
    TensorInfo,
    TensorReference,
)
from latency.graph.torch_forms import (
    meta_script,
    require_visible_weights,
    uncompiled,
    weights_dtype,
    with_modules_of_weights,
)
from latency.sizes import require_input_shape, require_positive

_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]

# torch works out the shapes of some operators in Python (0.7 ms for a batch norm), and networks repeat
# themselves and each other: the layouts of results are kept by operator and arguments.
_KNOWN_RESULTS: dict[object, tuple[_Layout, ...]] = {}
_MAX_KNOWN_RESULTS = 20_000

# Operators that look at the numbers in a tensor: the Python code around them may branch on what they find.
_READS_VALUES = frozenset(
    {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten._unique2"}
)


def graph_from_torch(
    model: nn.Module, input_shape: tuple[int, ...], *, batch_size: int = 1, dtype: torch.dtype | None = None
) -> OperatorGraph:
    """Trace one inference of `model` on meta tensors: nothing is computed and no memory is taken.

    Scripted models and exported ones are traced too; their operators belong to the module whose weights they read.
    Where torch has several kernels for attention, the operator is the one that the CPU takes.

    Args:
        model: In eval mode, on any device. Left as it was.
        input_shape: `(C, H, W)`, without the batch.
        batch_size: The batch to trace; a search counts costs for a batch of 1.
        dtype: Of the input; `None` for that of the model's first floating-point weight. A model that looks its
            input up in an embedding takes `torch.int64`.

    Raises:
        ValueError: If `model` is in train mode, or a size is not positive.
        TracingError: If the model fails on such an input, reads a tensor's values to choose its way, or hides its
            weights: quantised and frozen ones do.
    """
    require_eval_mode(model)
    require_positive(batch_size=batch_size)
    return trace_inference(model, (batch_size, *require_input_shape(input_shape)), dtype=dtype)


def trace_inference(model: nn.Module, shape: tuple[int, ...], *, dtype: torch.dtype | None = None) -> OperatorGraph:
    """Return the operators of one inference of `model`, in eval mode, on an input of `shape`, batch included.

    Raises:
        TracingError: As `graph_from_torch` says.
    """
    model = uncompiled(model)
    require_visible_weights(model)
    recorder = OperatorRecorder()
    traced = meta_script(model) if isinstance(model, torch.jit.ScriptModule) else model
    parameters = {name: recorder.add(p, StorageKind.PARAMETER) for name, p in traced.named_parameters()}
    buffers = {name: recorder.add(b, StorageKind.BUFFER) for name, b in traced.named_buffers()}
    image = torch.empty(shape, dtype=dtype or weights_dtype(model), device="meta")
    inputs = (recorder.add(image, StorageKind.INPUT),)
    path = ModulePath(traced)
    recorder.module_path = path
    try:
        run = functools.partial(traced, image)
        if traced is model:
            state = {name: recorder.to_meta(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
            run = functools.partial(torch.func.functional_call, model, state, (image,))
        # Under no_grad, not inference_mode, composite operators reach the recorder decomposed.
        with torch.no_grad(), path, CpuAttention(lambda: path.module), recorder:
            output = run()
    except Exception as fault:
        raise TracingError(explain_failure(model, shape, path.current, recorder.running, fault)) from fault
    outputs = tuple(recorder.add(t) for t in tree_leaves(output) if isinstance(t, torch.Tensor))
    operators = tuple(recorder.operators)
    if traced is not model or is_exported(model):
        operators = with_modules_of_weights(operators, parameters)
    return OperatorGraph(
        operators,
        tuple(recorder.tensors),
        tuple(recorder.storages),
        inputs,
        outputs,
        parameters,
        buffers,
        shape[0],
        recorder.releases(),
    )


def explain_failure(model: nn.Module, shape: tuple[int, ...], module: str, operator: str, fault: Exception) -> str:
    """Return what a `TracingError` says: where the model failed, and why."""
    place = f"{type(model.get_submodule(module)).__name__} {module!r}" if module else type(model).__name__
    if operator == "aten.embedding" and "indices" in str(fault):
        reason = f"an embedding takes integers: give dtype=torch.int64 ({fault})"
    elif operator in _READS_VALUES or "meta" in str(fault):
        reason = f"it reads the numbers in a tensor, to branch on them for example ({operator}: {fault})"
    else:
        reason = str(fault)
    return f"cannot trace {place} on an input of shape {shape}: {reason}"


class ModulePath:
    """Knows, while entered, in which module of a model the code is running."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._stack: list[nn.Module] = []
        self._hooks: tuple[Any, ...] = ()

    @property
    def current(self) -> str:
        """Dotted path of the innermost module, or the one in which an exception left the model."""
        return self._names[self._stack[-1]] if self._stack else ""

    @property
    def module(self) -> nn.Module | None:
        """That module itself; `None` outside of all."""
        return self._stack[-1] if self._stack else None

    def __enter__(self) -> None:
        # Hooks for all modules rather than on this model's: the model is not touched, not even for a while.
        self._hooks = (
            register_module_forward_pre_hook(self._push),
            register_module_forward_hook(self._pop),
        )

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _push(self, module: nn.Module, args: Any) -> None:
        if module in self._names:
            self._stack.append(module)

    def _pop(self, module: nn.Module, args: Any, output: Any) -> None:
        if module in self._names:
            self._stack.pop()


class OperatorRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every operator on meta tensors and writes it down.

    Real tensors that the model keeps outside its parameters and buffers are replaced where they meet a
    meta tensor. No tensor is kept alive, so that the moment shows at which the model's code lets go of it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator] = []
        self.tensors: list[TensorInfo] = []
        self.storages: list[Storage] = []
        self.running = ""
        self.module_path: ModulePath | None = None
        self._tensor_ids = WeakIdKeyDictionary()
        self._storage_ids: dict[int, int] = {}
        self._twins = WeakIdKeyDictionary()
        self._twin_storages: dict[int, torch.UntypedStorage] = {}
        self._live: dict[int, StorageWeakRef] = {}
        self._releases: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.running = _name(func)
        self._note_releases()
        tensors = list(_tensors((*args, *kwargs.values())))
        if any(tensor.is_meta for tensor in tensors):
            args, kwargs, tensors = self._all_meta(args, kwargs, tensors)
        inputs = tuple(self.add(tensor) for tensor in tensors)
        call = OperatorCall(func, self._referring(args), {name: self._referring(v) for name, v in kwargs.items()})
        writes = tuple(self.add(tensor) for tensor in _tensors(_written(func, args, kwargs)))
        result = self._run(func, args, kwargs, tensors)
        outputs = tuple(self.add(tensor) for tensor in _tensors((result,)))
        module = self.module_path.current if self.module_path else ""
        attributes = _attributes(func, args, kwargs)
        self.operators.append(Operator(self.running, inputs, outputs, module, attributes, writes, call))
        return result

    def add(self, tensor: torch.Tensor, kind: StorageKind = StorageKind.ACTIVATION) -> int:
        """Return the index of `tensor`, which is new or known."""
        known: int | None = self._tensor_ids.get(tensor)  # type: ignore[no-untyped-call]
        # An in-place operator such as unsqueeze_ gives the same object another shape: that is a new tensor.
        if known is not None and self.tensors[known].shape == tensor.shape:
            return known
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storage_ids:
            self._name_storage(storage, len(self.storages))
            self.storages.append(Storage(storage.nbytes(), kind))
        index = self._tensor_ids[tensor] = len(self.tensors)
        self.tensors.append(TensorInfo(tuple(tensor.shape), tensor.dtype, self._storage_ids[storage._cdata]))
        return index

    def set_kind(self, tensor: torch.Tensor, kind: StorageKind) -> None:
        """Say what a known tensor's memory turned out to be there for."""
        index = self.tensors[self.add(tensor)].storage
        self.storages[index] = replace(self.storages[index], kind=kind)

    def to_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the meta tensor that stands for a real one; twins of views share a storage as well."""
        if tensor.is_meta:
            return tensor
        known: torch.Tensor | None = self._twins.get(tensor)  # type: ignore[no-untyped-call]
        if known is not None:
            return known
        index = self.add(tensor)
        storage = tensor.untyped_storage()
        if (twin_storage := self._twin_storages.get(storage._cdata)) is None:
            twin_storage = torch.UntypedStorage(storage.nbytes(), device="meta")  # type: ignore[no-untyped-call]
            self._twin_storages[storage._cdata] = twin_storage
            self._name_storage(twin_storage, self._storage_ids[storage._cdata])
        twin = torch.empty(0, dtype=tensor.dtype, device="meta")
        twin.set_(twin_storage, tensor.storage_offset(), tensor.size(), tensor.stride())
        self._twins[tensor] = twin
        self._tensor_ids[twin] = index
        return twin

    def releases(self) -> tuple[int, ...]:
        """Return `OperatorGraph.releases`, of the storages seen up to now."""
        return tuple(self._releases.get(index, len(self.operators)) for index in range(len(self.storages)))

    def _name_storage(self, storage: torch.UntypedStorage, index: int) -> None:
        self._storage_ids[storage._cdata] = index
        # While somebody refers to it weakly, its address is not given to another one.
        self._live[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def _note_releases(self) -> None:
        # The end of a real storage takes its twin's only owner away, hence the repetition.
        while expired := [address for address, reference in self._live.items() if reference.expired()]:  # type: ignore[no-untyped-call]
            for address in expired:
                self._releases[self._storage_ids.pop(address)] = len(self.operators)
                self._twin_storages.pop(address, None)
                del self._live[address]

    def _referring(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return TensorReference(self.add(value))
        if isinstance(value, list | tuple):
            return tuple(self._referring(item) for item in value)
        return value

    def _all_meta(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Any], list[torch.Tensor]]:
        if not all(tensor.is_meta for tensor in tensors):
            args, kwargs = tree_map_only(torch.Tensor, self.to_meta, (args, kwargs))
            tensors = list(_tensors((*args, *kwargs.values())))
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        return args, kwargs, tensors

    def _run(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]) -> Any:
        if self.running == "aten._grouped_mm" and tensors[0].is_meta:
            return _grouped_product(func, args, kwargs)
        if not tensors or func._schema.is_mutable or not all(tensor.is_meta for tensor in tensors):
            return func(*args, **kwargs)
        key = (func, torch.get_default_dtype(), _key(args), _key(tuple(kwargs.items())))
        if (known := _KNOWN_RESULTS.get(key)) is not None:
            copies = tuple(
                torch.empty_strided(size, stride, dtype=dtype, device="meta") for size, stride, dtype in known
            )
            return copies[0] if len(copies) == 1 else copies
        result = func(*args, **kwargs)
        results = (result,) if isinstance(result, torch.Tensor) else result
        if isinstance(results, tuple) and _own_their_memory(results, tensors):
            if len(_KNOWN_RESULTS) >= _MAX_KNOWN_RESULTS:
                _KNOWN_RESULTS.clear()
            _KNOWN_RESULTS[key] = tuple((t.size(), t.stride(), t.dtype) for t in results)
        return result


def _grouped_product(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """Return the result of a grouped product, whose meta kernel takes one precision alone where the CPU's takes all."""
    dtype = args[0].dtype
    low = [torch.empty_like(t, dtype=torch.bfloat16) if t.is_floating_point() else t for t in args[:2]]
    result: torch.Tensor = func(*low, *args[2:], **kwargs)
    return torch.empty_like(result, dtype=dtype)


def _own_their_memory(results: tuple[Any, ...], arguments: list[torch.Tensor]) -> bool:
    if not all(isinstance(result, torch.Tensor) for result in results):
        return False
    storages = {t.untyped_storage()._cdata for t in (*results, *arguments)}
    return len(storages) == len(results) + len({t.untyped_storage()._cdata for t in arguments})


def _key(value: Any) -> object:
    """Return what an operator's result depends on; types count, for `1 == 1.0 == True`."""
    if isinstance(value, torch.Tensor):
        return value.size(), value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(_key(item) for item in value)
    return type(value), value


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@functools.cache
def _name(func: OpOverload) -> str:
    namespace, _, name = func._schema.name.partition("::")
    return f"{namespace}.{name}"


@functools.cache
def _argument_names(func: OpOverload) -> tuple[str, ...]:
    return tuple(argument.name for argument in func._schema.arguments)


@functools.cache
def _written_names(func: OpOverload) -> tuple[str, ...]:
    arguments = func._schema.arguments
    return tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)


def _written(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    if names := _written_names(func):
        named = {**dict(zip(_argument_names(func), args, strict=False)), **kwargs}
        yield from (named[name] for name in names if name in named)


def _attributes(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    named = {**dict(zip(_argument_names(func), args, strict=False)), **kwargs}
    return {
        name: value
        for name, value in named.items()
        if not isinstance(value, torch.Tensor)
        and not (isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value))
    }
