"""One measurement in a process of its own: a model that crashes or hangs takes nothing else with it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from latency.errors import DeviceUnavailableError, LatencyError
from latency.sizes import require_input_shape
from latency.timing.clocks import cpu_conditions, processor_name
from latency.timing.onnx_session import PROVIDERS, OnnxTiming

_START_S = 30.0  # for the process to start and the session to be made
_MAX_SAID = 2_000  # characters of what a process said at its end

_running: set["subprocess.Popen[bytes]"] = set()
_LIMITS = {"n_threads": 1024, "index": 1023, "n_runs": 10**6, "n_warmup": 10**6, "time_limit_s": 10**6}


def options_of(asked: Mapping[str, Any]) -> tuple[OnnxTiming, tuple[int, ...]]:
    """Return how to time, and the shape of the input with the batch, of a client's options.

    Raises:
        ValueError: If an option is unknown or out of bounds.
    """
    options = dict(asked)
    shape = require_input_shape(tuple(options.pop("input_shape", ())))
    batch_size = options.pop("batch_size", 1)
    known = {field.name for field in fields(OnnxTiming)}
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"unknown options {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    for name, most in _LIMITS.items():
        value = options.get(name)
        least = 0 if name in ("index", "n_warmup") else 1e-9
        if value is not None and not (isinstance(value, int | float) and least <= value <= most):
            raise ValueError(f"{name} must be a number from {least:g} to {most}, got {value!r}")
    if options.get("execution_provider", "cpu") not in PROVIDERS:
        raise ValueError(f"execution_provider must be one of {', '.join(PROVIDERS)}")
    if not isinstance(batch_size, int) or not 1 <= batch_size <= 10**6 or len(shape) > 6:
        raise ValueError("batch_size and input_shape must be positive whole numbers, 6 sizes at most")
    return OnnxTiming(**options), (batch_size, *shape)


def measured(content: bytes, options: Mapping[str, Any], time_limit_s: float) -> dict[str, Any]:
    """Return a reading as plain values, taken in a process of its own; or `error`, for the model's fault.

    With `lost` the error is the board's.

    Args:
        content: An ONNX file.
        options: As a client gave them.
        time_limit_s: Seconds after which the process is ended, whatever it does.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        command = [sys.executable, "-m", "latency.serving.measuring", str(path), json.dumps(dict(options))]
        with subprocess.Popen(  # noqa: S603 - our own module, a path of ours and checked options
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=folder,
        ) as process:
            _running.add(process)
            try:
                out, said = process.communicate(timeout=time_limit_s)
            except subprocess.TimeoutExpired:
                return {"error": f"the measurement took over {time_limit_s:g} s and was ended"}
            finally:
                _end(process)
                _running.discard(process)
    if process.returncode != 0:
        last = said.decode("utf-8", "replace").strip()[-_MAX_SAID:]
        return {"error": f"the measuring process ended with code {process.returncode}: {last}"}
    found: dict[str, Any] = json.loads(out)
    return found


def end_all() -> None:
    """End all measurements that run."""
    for process in list(_running):
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and its children, if it still runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def time_needed(options: Mapping[str, Any]) -> float:
    """Return the seconds that a measurement may take: a first inference, the timed ones, a start."""
    return 2 * float(options.get("time_limit_s") or 30.0) + _START_S


def _main(path: str, options: str) -> None:
    """Measure, and print the reading."""
    timing, shape = options_of(json.loads(options))
    try:
        timing.check()
        conditions = {
            "device": "cpu",
            "processor": processor_name(),
            **timing.conditions(shape),
            "precision": "float32",
        }
        stats = timing.time(path, shape, lambda: {**conditions, **cpu_conditions()})
    except DeviceUnavailableError as error:
        print(json.dumps({"error": str(error), "lost": True}))
    except LatencyError as error:
        print(json.dumps({"error": str(error)}))
    except Exception as error:  # noqa: BLE001 - whatever onnxruntime raises about a file
        print(json.dumps({"error": f"onnxruntime cannot run the file: {error}"[:_MAX_SAID]}))
    else:
        figures = {name: getattr(stats, name) for name in ("median_ms", "p10_ms", "p90_ms", "n_runs")}
        print(json.dumps({**figures, "conditions": dict(stats.conditions)}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
