"""Looks at the machine when an attempt was lost: a shortage or a damaged file there is no candidate's fault."""

import contextlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from nas.errors import MachineError
from nas.evaluation.evaluator import Evaluator
from nas.faults import GO_ON, blaming_machine

_SCARCE = 0.05  # share of the memory, below which what is left is too little

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def check_machine(evaluator: Evaluator, reason: str, is_last: bool) -> None:
    """Check that an attempt was not lost by the machine's fault; called when its process is gone.

    Args:
        evaluator: Its files must be there, and whole: a process that maps one into memory dies when it is cut short.
        reason: Why the attempt was lost.
        is_last: Whether no other is made: only then is memory looked at, since before fewer workers may do.

    Raises:
        MachineError: If one of them is not, or memory is short though the candidate holds none any more.
    """
    for path in evaluator.files:
        with blaming_machine(f"{path} cannot be read, and an attempt was lost ({reason})"):
            _look_into(path)
    if is_last and "memory" in reason:
        _check_memory(evaluator.device, reason)


def _look_into(path: Path) -> None:
    """Open a file as trainings do, and see that it is as long as it says."""
    match path.suffix:
        case ".npy":
            np.load(path, mmap_mode="r", allow_pickle=False)
        case ".safetensors":
            with safe_open(path, "np"):
                pass
        case _:
            with path.open("rb"):
                pass


def _check_memory(device: str, reason: str) -> None:
    if device.startswith("cuda"):
        with contextlib.suppress(RuntimeError):
            free, total = torch.cuda.mem_get_info(device)
            _check_share(free, total, device, reason)
    elif (sizes := free_and_total_bytes()) is not None:
        _check_share(*sizes, "this machine", reason)


def _check_share(free: int, total: int, where: str, reason: str) -> None:
    if free < _SCARCE * total:
        raise MachineError(
            f"an attempt was lost ({reason}), and though its process is gone, {where} has {free / 2**30:.2f} GiB of "
            f"{total / 2**30:.2f} GiB of memory free. No candidate is to blame; end what else uses memory there, or "
            f"use fewer workers, then {GO_ON}"
        )


def free_and_total_bytes() -> tuple[int, int] | None:
    """Return the memory that processes may still take, and all of it: of the control group where it has a limit."""
    try:
        lines = (line.split() for line in _MEMINFO.read_text().splitlines())
        sizes = {words[0]: int(words[1]) * 1024 for words in lines}
        free, total = sizes["MemAvailable:"], sizes["MemTotal:"]
    except (OSError, KeyError, ValueError, IndexError):
        return None
    try:
        limit = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # there is no group, or no limit
        return free, total
    return min(free, max(0, limit - used)), min(total, limit)
