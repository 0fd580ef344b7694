"""Calls on the nodes of a Ray cluster that carry a device and run nothing else."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from nas.errors import InputError
from nas.execution.ray_api import ray_api

_POLL_S = 1.0  # between looks at which nodes there are
_MAX_LOST = 3  # calls that are lost and made again

# A device's node offers Ray no GPU, so that no training is scheduled there; a call that measures a GPU must see it.
_WITH_GPUS = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}

_log = logging.getLogger(__name__)

T = TypeVar("T")


class DeviceNodes:
    """The nodes labelled with a device, as a resource; one that was there once and goes away is waited for."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def call(self, label: str, function: Callable[..., T], *arguments: object) -> T:
        """Call `function` on a node that carries `label`, where nothing else runs meanwhile, and return its result.

        Raises:
            InputError: If no such node was ever there, it offers places to trainings, or the call was lost too often.
        """
        if label in self._seen:
            _wait_for(label)
        else:
            nodes = _nodes(label)
            if not nodes:
                raise InputError(f"no node of the Ray cluster carries {label!r}; {_how_to_start(label)}")
            _check_alone(nodes, label)
            self._seen.add(label)
        # Ray must not retry by itself: a lost call is logged first, then made again below.
        options = {"num_cpus": 0, "resources": {label: 1}, "runtime_env": _WITH_GPUS, "max_retries": 0}
        for _ in range(_MAX_LOST + 1):
            try:
                result: T = _answer(ray_api().remote(_call).options(**options).remote(function, *arguments), label)
            except ray_api().exceptions.RayTaskError:
                raise  # by the function itself
            except ray_api().exceptions.RayError as error:
                lost = str(error).strip().partition("\n")[0] or type(error).__name__
                _log.warning("A call on the node of %r was lost and is made again: %s", label, lost)
                _wait_for(label)
            else:
                return result
        text = f"the node of {label!r}, or the process that measured there, was lost {_MAX_LOST + 1} times"
        raise InputError(f"{text} under the same call: {lost}")


def _answer(call: Any, label: str) -> Any:
    """Return the result of a call; waits for a missing node and logs that it waits."""
    while not ray_api().wait([call], timeout=_POLL_S)[0]:
        _wait_for(label)
    return ray_api().get(call)


def _wait_for(label: str) -> None:
    """Wait until a node carries `label`; log once that it waits."""
    nodes = _nodes(label)
    if not nodes:
        _log.warning("No node of the Ray cluster carries %r any more; waiting for it: %s", label, _how_to_start(label))
    while not nodes:
        time.sleep(_POLL_S)
        nodes = _nodes(label)
    _check_alone(nodes, label)


def _check_alone(nodes: Sequence[Mapping[str, Any]], label: str) -> None:
    """Check that the nodes of a device run nothing else."""
    for node in nodes:
        if offered := {kind: n for kind in ("CPU", "GPU") if (n := node["Resources"].get(kind))}:
            raise InputError(
                f"node {node['NodeManagerAddress']} carries {label!r} and must run nothing else, but offers "
                f"{offered} to Ray; {_how_to_start(label)}"
            )


def _nodes(label: str) -> list[dict[str, Any]]:
    """Return the nodes that are there and carry `label`."""
    return [node for node in ray_api().nodes() if node["Alive"] and node["Resources"].get(label)]


def _how_to_start(label: str) -> str:
    return f"start the node of that device with ray start --num-cpus=0 --num-gpus=0 --resources='{{\"{label}\": 1}}'"


def _call(function: Callable[..., T], *arguments: object) -> T:
    return function(*arguments)
