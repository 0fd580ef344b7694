"""The forms in which a torch model can come: in other precisions, scripted, exported, quantised."""

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from latency.errors import TracingError
from latency.graph.operator_graph import Operator

_QUANTISED_MODULES = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse.quantized")


def weights_dtype(model: nn.Module) -> torch.dtype:
    """Return the element type of a model's first floating-point weight, which it takes as its input too."""
    tensors = (tensor for group in (model.parameters(), model.buffers()) for tensor in group)
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())


def require_visible_weights(model: nn.Module) -> None:
    """Check that a model's weights are parameters that can be seen from outside.

    Raises:
        TracingError: If it is quantised by torch, or a frozen script.
    """
    for name, module in model.named_modules():
        if type(module).__module__.startswith(_QUANTISED_MODULES):
            place = f"{type(module).__name__} {name!r}" if name else type(module).__name__
            raise TracingError(
                f"cannot trace {place}: torch packs the weights of quantised modules and runs them on real numbers "
                "alone. Profile the model that it was quantised from, or its quantised ONNX file"
            )
    if (
        isinstance(model, torch.jit.ScriptModule)
        and not any(True for _ in model.parameters())
        and _holds_tensors(model)
    ):
        raise TracingError(
            f"cannot trace {type(model).__name__}: torch.jit.freeze made constants of its weights. Profile the script "
            "that it was frozen from"
        )


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the model that `torch.compile` was given: what runs before it is fused."""
    return dict(model.named_children()).get("_orig_mod", model)


def meta_script(model: torch.jit.ScriptModule) -> nn.Module:
    """Return a copy of a script without numbers: its weights can't be replaced for one call, as those of others can."""
    file = io.BytesIO()
    torch.jit.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.jit.load(file, map_location="meta")  # type: ignore[no-untyped-call]
    return loaded


def with_modules_of_weights(operators: tuple[Operator, ...], parameters: Mapping[str, int]) -> tuple[Operator, ...]:
    """Return operators of a model that runs without its modules, each in the module whose parameter it reads."""
    owners = {tensor: name.rpartition(".")[0] for name, tensor in parameters.items()}
    return tuple(
        replace(operator, module=next((owners[t] for t in operator.inputs if t in owners), operator.module))
        for operator in operators
    )


def _holds_tensors(model: torch.jit.ScriptModule) -> bool:
    graph: Any = model.inlined_graph  # its nodes live as long as it
    return any(node.output().type().kind() == "TensorType" for node in graph.findAllNodes("prim::Constant"))
