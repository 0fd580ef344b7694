"""What every function that takes a model and an input shape asks of them."""

from torch import nn


def require_eval_mode(model: nn.Module) -> None:
    """Check that `model` and all its modules are in eval mode.

    Raises:
        ValueError: Naming the first module in train mode.
    """
    for name, module in model.named_modules():
        if module.training:
            place = f"its module {name!r}" if name else "it"
            raise ValueError(f"model must be in eval mode, but {place} is in train mode: call model.eval()")


def require_input_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `input_shape` as a tuple of ints.

    Raises:
        ValueError: If it is empty or a size is not positive.
    """
    shape = tuple(int(size) for size in input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape must hold positive sizes without the batch, such as (3, 64, 64), got {shape}")
    return shape


def require_positive(**options: float | None) -> None:
    """Check that the options given are positive; `None` stands for "not given".

    Raises:
        ValueError: With a message that starts with the option's name.
    """
    for name, value in options.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
