"""What every function that takes sizes and numbers asks of them; needs no torch."""


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
