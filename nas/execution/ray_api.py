"""Ray, imported when it is first needed."""

import functools
from typing import Any

from nas.errors import InputError


@functools.cache
def ray_api() -> Any:
    """Return the module, imported when it is first needed: that takes a while.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import ray  # noqa: PLC0415 - see above
    except ImportError:
        raise InputError('execution.kind ray: Ray is not installed; pip install "pareto-nas[ray]"') from None
    return ray
