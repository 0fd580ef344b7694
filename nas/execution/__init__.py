"""Where and when candidates are evaluated."""

from nas.execution.base import Executor
from nas.execution.process_pool import ProcessPoolExecutor
from nas.execution.ray_cluster import RayExecutor
from nas.execution.serial import SerialExecutor

EXECUTORS: dict[str, type[Executor]] = {
    "serial": SerialExecutor,
    "process_pool": ProcessPoolExecutor,
    "ray": RayExecutor,
}

__all__ = ["EXECUTORS", "Executor", "ProcessPoolExecutor", "RayExecutor", "SerialExecutor"]
