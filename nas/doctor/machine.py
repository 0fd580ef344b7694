"""What this machine is, and what works on it: each thing is tried, not asked for."""

import contextlib
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from latency.graph.onnx_writer import write_onnx
from latency.timing.clocks import processor_name
from nas.doctor.findings import Finding, absent, broken, ok
from nas.training.convolution_scan import ConvolutionKind, Verdict, scan
from nas.version import VERSION

_PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "onnxscript", "safetensors", "pymoo", "moocore", "pydantic")
_EXTRAS = {"ray": "ray", "pyarrow": "parquet"}
_LEAST_FREE_BYTES = 1 << 30


def look_at_machine(folder: Path) -> Iterator[Finding]:
    """Yield what is found of versions, devices, export, memory and disk.

    Args:
        folder: Where runs are to be written; the disk looked at is its.
    """
    yield ok("pareto-nas", f"{VERSION}, Python {platform.python_version()}, {platform.platform()}")
    yield from map(_package, _PACKAGES)
    yield from (_extra(package, extra) for package, extra in _EXTRAS.items())
    yield ok("processor", f"{processor_name()}, {_n_cores()} cores for this process")
    yield _memory()
    yield _disk(folder)
    yield from _cuda()
    yield ok("onnxruntime", f"providers: {', '.join(onnxruntime.get_available_providers())}")
    yield _tried("export", "a network is exported to ONNX and gives the same there", _export)


def scan_gradients(kinds: Sequence[ConvolutionKind] | None = None) -> Finding:
    """Return whether gradients of convolutions are right on this processor.

    Args:
        kinds: Which to scan; `None` for all, which takes a minute or two.
    """
    found = scan(kinds)
    wrong = [finding for finding in found if finding.verdict is not Verdict.RIGHT]
    if not wrong:
        return ok("gradients", f"right for all {len(found)} kinds of convolutions")
    first = wrong[0]
    return broken(
        "gradients",
        f"{len(wrong)} of {len(found)} kinds of convolutions do not train: {first.verdict} for {first.kind}",
        "set ONEDNN_MAX_CPU_ISA=SSE41 in the environment, scan again, and report what `python -m "
        "nas.training.convolution_scan` prints",
    )


def _package(name: str) -> Finding:
    try:
        return ok(name, version(name))
    except PackageNotFoundError:
        return broken(name, "is not installed", 'pip install "pareto-nas" again')


def _extra(package: str, extra: str) -> Finding:
    if importlib.util.find_spec(package) is None:
        return absent(package, "is not installed", f'pip install "pareto-nas[{extra}]" where it is needed')
    return _tried(package, version(package), lambda: importlib.import_module(package))


def _tried(name: str, text: str, action: Callable[[], object]) -> Finding:
    """Return how an action ended."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - of a library that may be broken in any way
        reason = " ".join(str(error).split())[:300]
        return broken(name, f"{type(error).__name__}: {reason}", "install it again, in a version that fits the others")
    return ok(name, text)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> Finding:
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
        text = f"{kib['MemAvailable'] / 2**20:.1f} of {kib['MemTotal'] / 2**20:.1f} GiB available"
        if kib["MemAvailable"] << 10 < _LEAST_FREE_BYTES:
            return broken("memory", text, "end other programs, or search with fewer workers (execution.n_workers)")
        return ok("memory", text)
    return absent("memory", "this system does not tell")


def _disk(folder: Path) -> Finding:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(place)
    text = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free in {place}"
    if usage.free < _LEAST_FREE_BYTES:
        return broken("disk", text, "free some, or name a --run-dir on another disk")
    if not os.access(place, os.W_OK):
        return broken("disk", f"{text}, where nothing can be written", "name a --run-dir elsewhere")
    return ok("disk", text)


def _cuda() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield absent("CUDA", "torch sees no device")
        return
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index}"
        properties = torch.cuda.get_device_properties(index)
        text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        yield _tried(name, text, lambda device=name: torch.ones(8, device=device).sum().item())  # type: ignore[misc]
        yield _tried(f"{name} graphs", "steps are captured and replayed", lambda device=name: _capture(device))  # type: ignore[misc]


def _capture(device: str) -> None:
    """Capture an operation in a CUDA graph and replay it.

    Raises:
        RuntimeError: If it does not compute what the operation does.
    """
    with torch.cuda.device(device):
        given, graph = torch.ones(8, device=device), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            doubled = given * 2
        given.fill_(3)
        graph.replay()
        if doubled.sum().item() != 48:
            raise RuntimeError("a replayed graph computes something else")


def _export() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (3, 8, 8), Path(folder) / "network.onnx")
