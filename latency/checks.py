"""What every function that takes a model asks of it."""

from torch import fx, nn
from torch._ops import OpOverload

_MODE_ARGUMENTS = frozenset({"training", "train"})  # of batch norms and dropouts


def is_exported(model: nn.Module) -> bool:
    """Return whether `model` comes from `torch.export(...).module()`, whose `train` and `eval` raise."""
    return isinstance(model, fx.GraphModule) and "eval" in vars(model)


def require_eval_mode(model: nn.Module) -> None:
    """Check that `model` and all its modules are in eval mode.

    An exported model keeps the mode in which it was exported, in its operators alone.

    Raises:
        ValueError: Naming the first module in train mode.
    """
    if is_exported(model):
        assert isinstance(model, fx.GraphModule)  # noqa: S101 - is_exported says so
        _require_exported_in_eval_mode(model)
        return
    for name, module in model.named_modules():
        if getattr(module, "training", False):  # a frozen script has no modes
            place = f"its module {name!r}" if name else "it"
            raise ValueError(f"model must be in eval mode, but {place} is in train mode: call model.eval()")


def _require_exported_in_eval_mode(model: fx.GraphModule) -> None:
    for node in model.graph.nodes:
        if not isinstance(node.target, OpOverload):
            continue
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            if argument.name in _MODE_ARGUMENTS and value is True:
                raise ValueError(
                    f"model must be in eval mode, but it was exported in train mode ({node.target}): "
                    "call model.eval() before torch.export.export"
                )
