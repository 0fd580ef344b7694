"""At what speed the processors run, how busy they are, and when they are taken away, where the system tells."""

import importlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_QUERY_LIMIT_S = 5.0


@cache
def processor_name() -> str:
    """Return the CPU's name as its maker spells it, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def cpu_conditions() -> dict[str, Any]:
    """Return `clock_mhz` of the fastest core now and `load_average` of the last minute, those that can be read."""
    conditions: dict[str, Any] = {}
    if clocks := _core_clocks_mhz():
        conditions["clock_mhz"] = round(max(clocks))
    if hasattr(os, "getloadavg"):
        conditions["load_average"] = round(os.getloadavg()[0], 2)
    return conditions


def interruption_counter() -> Callable[[], int] | None:
    """Return what counts how often the system took a processor or memory from this process.

    Switches to another process that this one did not ask for, and pages that had to be read back from disk. `None`
    where the system does not tell.
    """
    try:
        resource = importlib.import_module("resource")  # not on Windows
    except ImportError:
        return None

    def count() -> int:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        n_interruptions: int = usage.ru_nivcsw + usage.ru_majflt
        return n_interruptions

    return count


def cuda_conditions(bus_id: str) -> dict[str, Any]:
    """Return `clock_mhz`, `memory_clock_mhz` and `temperature_c` of a CUDA device as its driver's tool reports them.

    Nothing where the tool is missing, does not answer, or does not know.

    Args:
        bus_id: Where the device is plugged in, as `latency.inference.pci_bus_id` tells; its number is not the tool's.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    names = {"clocks.sm": "clock_mhz", "clocks.mem": "memory_clock_mhz", "temperature.gpu": "temperature_c"}
    command = [tool, f"--id={bus_id}", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=_QUERY_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in answer.stdout.split(",")]
    return {name: int(value) for name, value in zip(names.values(), values, strict=False) if value.isdigit()}


def _core_clocks_mhz() -> list[float]:
    files = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if files:
        return [int(file.read_text()) / 1000 for file in files]
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return []
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    return [float(value) for key, _, value in lines if key.strip() == "cpu MHz"]
