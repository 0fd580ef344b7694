"""A board on the network that `python -m latency.serving` makes measure."""

import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Unit
from pydantic.dataclasses import dataclass as options
from torch import nn

from latency.checks import require_eval_mode
from latency.devices.base import OPTIONS, Device, MemoryReading
from latency.errors import DeviceUnavailableError, MeasurementError, OnnxExportError, UnsupportedMeasurementError
from latency.graph.onnx_writer import write_onnx_to_measure
from latency.serving.measuring import time_needed
from latency.sizes import require_input_shape
from latency.timing.onnx_session import PROVIDERS
from latency.timing.stats import LatencyStats

_CONNECT_S = 5.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_BUSY = (429, 503, 507)
_BESIDE_S = 30.0  # for sending the file and waiting in the queue, beyond the measurement itself
_log = logging.getLogger(__name__)


class _LostError(Exception):
    """The board cannot be reached, or is busy."""


@options(frozen=True, config=OPTIONS)
class RemoteDevice(Device):
    """onnxruntime on a board, over HTTP. A board that is lost is waited for, aloud.

    The board shows who asks by a token, in the environment variable `token_variable` or the file `token_file`; never in
    the configuration itself. To a board that is not this machine, make an SSH tunnel:
    `ssh -L 8765:127.0.0.1:8765 BOARD`.

    Attributes:
        url: Where it serves.
        token_variable: Name of the environment variable that holds the token.
        token_file: A file that holds it instead.
        wait_s: How long a lost or busy board is waited for.
        batch_size: Images in one inference.
        n_threads: Of onnxruntime's operators.
        execution_provider: What runs the graph there.
        n_runs: Timed inferences, at most.
        relative_interval: As for `onnxruntime`.
        n_warmup: Inferences before the timed ones; `None` for as many as it takes to settle.
        time_limit_s: For the timed inferences; as much again for a first one.
    """

    metrics: ClassVar[frozenset[str]] = frozenset({"latency_ms"})

    url: str = "http://127.0.0.1:8765"
    token_variable: str = "NAS_BOARD_TOKEN"  # noqa: S105 - the variable's name
    token_file: Path | None = None
    wait_s: Annotated[float, Ge(0), Le(1e6), Unit("s")] = 600.0
    batch_size: Annotated[int, Gt(0), Le(10**6)] = 1
    n_threads: Annotated[int, Gt(0), Le(1024)] = 1
    execution_provider: Literal["cpu", "cuda", "tensorrt", "coreml", "openvino", "xnnpack"] = "cpu"
    n_runs: Annotated[int, Gt(0), Le(10**6)] = 200
    relative_interval: Annotated[float, Gt(0), Le(100)] | None = 0.02
    n_warmup: Annotated[int, Ge(0), Le(10**6)] | None = None
    time_limit_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] = 30.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, got {self.url!r}")

    def check(self) -> None:
        """See `Device.check`: asks the board once, without waiting for it, what it has and how long it measures."""
        status = self._status()
        wanted, needed_s = PROVIDERS[self.execution_provider], time_needed({"time_limit_s": self.time_limit_s})
        if wanted not in status.get("providers", ()):
            raise DeviceUnavailableError(f"the board at {self.url} has no {wanted}, only {status.get('providers')}")
        if needed_s > float(status.get("time_limit_s", 0)):
            raise DeviceUnavailableError(
                f"the board at {self.url} measures for {status.get('time_limit_s')} s at most; time_limit_s "
                f"{self.time_limit_s:g} may take {needed_s:g} s: lower it, or start the server with --time-limit"
            )

    def processor(self) -> str:
        """See `Device.processor`: the board's."""
        return str(self._status().get("processor", ""))

    def _status(self) -> dict[str, Any]:
        try:
            return self._ask("GET", "/status", b"", {}, _CONNECT_S)
        except _LostError as error:
            raise DeviceUnavailableError(f"the board at {self.url} cannot be used: {error}") from error

    def measure_latency(self, model: nn.Module, input_shape: tuple[int, ...]) -> LatencyStats:
        """See `Device.measure_latency`."""
        require_eval_mode(model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            try:
                write_onnx_to_measure(model, input_shape, path)
            except OnnxExportError as fault:
                raise MeasurementError(f"onnxruntime cannot run the model: {fault}") from fault
            return self.measure_file(path, input_shape)

    def measure_file(self, path: Path, input_shape: tuple[int, ...]) -> LatencyStats:
        """Time the inference of an ONNX file with one floating-point input; arguments as for `measure_latency`."""
        asked = {
            "input_shape": list(require_input_shape(input_shape)),
            "batch_size": self.batch_size,
            "n_threads": self.n_threads,
            "execution_provider": self.execution_provider,
            "n_runs": self.n_runs,
            "relative_interval": self.relative_interval,
            "n_warmup": self.n_warmup,
            "time_limit_s": self.time_limit_s,
        }
        found = self._waiting(path.read_bytes(), asked)
        try:
            stats = LatencyStats(
                median_ms=float(found["median_ms"]),
                p10_ms=float(found["p10_ms"]),
                p90_ms=float(found["p90_ms"]),
                n_runs=int(found["n_runs"]),
                conditions={**dict(found["conditions"]), "board": self.url},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DeviceUnavailableError(f"the board at {self.url} gives no reading: {error}") from error
        return stats

    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """See `Device.measure_peak_memory`."""
        raise UnsupportedMeasurementError("a board's onnxruntime does not tell its peak memory")

    def _waiting(self, content: bytes, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the board's answer; while it is lost or busy, ask again."""
        headers = {"X-Latency-Options": json.dumps(asked), "Content-Type": "application/octet-stream"}
        deadline, pause = time.monotonic() + self.wait_s, _FIRST_WAIT_S
        while True:
            try:
                return self._ask("POST", "/latency", content, headers, time_needed(asked) + _BESIDE_S)
            except _LostError as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeviceUnavailableError(
                        f"the board at {self.url} was waited for {self.wait_s:g} s in vain: {error}"
                    ) from error
                _log.warning("the board at %s cannot be used (%s); waiting for %.0f s more", self.url, error, left)
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_WAIT_S)

    def _ask(
        self, method: str, place: str, content: bytes, headers: dict[str, str], timeout_s: float
    ) -> dict[str, Any]:
        """Return the board's answer to one request.

        Raises:
            _LostError: If it cannot be reached, or is busy.
            MeasurementError: If it cannot measure this model.
            DeviceUnavailableError: If it refuses the request, or is none of ours.
        """
        try:
            import httpx  # noqa: PLC0415 - an extra
        except ImportError:
            raise DeviceUnavailableError('a remote device needs httpx: pip install "pareto-nas[remote]"') from None
        timeout = httpx.Timeout(timeout_s, connect=_CONNECT_S)
        shown = {**headers, "Authorization": f"Bearer {self._token()}"}
        try:
            answer = httpx.request(
                method, self.url.rstrip("/") + place, content=content, headers=shown, timeout=timeout
            )
        except httpx.LocalProtocolError as error:
            raise DeviceUnavailableError(f"the board at {self.url} cannot be asked: {error}") from error
        except httpx.TransportError as error:
            raise _LostError(f"{type(error).__name__}: {error}") from error
        except httpx.InvalidURL as error:
            raise DeviceUnavailableError(f"url {self.url!r} is none: {error}") from error
        try:
            found = answer.json()
            said = str(found.get("error", ""))
        except (ValueError, AttributeError):
            raise DeviceUnavailableError(f"what serves at {self.url} is no latency server") from None
        if answer.status_code in _BUSY:
            raise _LostError(said)
        if answer.status_code == 422:
            raise MeasurementError(f"the board at {self.url} cannot measure the model: {said}")
        if answer.status_code != 200:
            raise DeviceUnavailableError(f"the board at {self.url} refuses: {said}")
        result: dict[str, Any] = found
        return result

    def _token(self) -> str:
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise DeviceUnavailableError(f"token_file {self.token_file} cannot be read: {error}") from error
            if not token:
                raise DeviceUnavailableError(f"token_file {self.token_file} holds no token")
            return token
        token = os.environ.get(self.token_variable, "")
        if not token:
            raise DeviceUnavailableError(
                f"the environment variable {self.token_variable} does not hold the board's token: set it to what "
                "the server printed"
            )
        return token
