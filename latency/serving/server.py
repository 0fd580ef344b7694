"""The server on a board: takes ONNX files, gives readings. It needs numpy, onnxruntime and waitress."""

import argparse
import hmac
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import onnxruntime

from latency.serving.measuring import end_all, measured, options_of, time_needed
from latency.timing.clocks import processor_name

FORMAT = "pareto-nas latency server 1"
_OPTIONS = "HTTP_X_LATENCY_OPTIONS"  # what WSGI makes of X-Latency-Options
_NO_MODEL = "422 Unprocessable Content"
_MAX_OPTIONS = 4_096  # characters
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BESIDE = 2  # threads that answer while a measurement runs
_DATA_ELSEWHERE = b"\x0a\x08location"  # an ONNX tensor whose numbers lie in another file

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Application:
    """A WSGI application: `GET /status`, and `POST /latency` with an ONNX file as body.

    Args:
        token: What a client must show.
        max_bytes: Of a file.
        n_queue: Measurements that may wait for the one that runs.
        time_limit_s: The longest measurement.
    """

    def __init__(self, token: str, max_bytes: int, n_queue: int, time_limit_s: float) -> None:
        self._token = token
        self._max_bytes = max_bytes
        self._time_limit_s = time_limit_s
        self._places = threading.BoundedSemaphore(n_queue + 1)
        self._device = threading.Lock()  # one model at a time

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request in JSON."""
        status, answer = self._answer(environ)
        content = json.dumps(answer).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
        return [content]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        try:
            shown = str(environ.get("HTTP_AUTHORIZATION", "")).removeprefix("Bearer ").encode()
            if not hmac.compare_digest(shown, self._token.encode()):
                raise _RefusedError("401 Unauthorized", "the token is missing or wrong")
            match environ["REQUEST_METHOD"], environ.get("PATH_INFO"):
                case "GET", "/status":
                    return "200 OK", self._status()
                case "POST", "/latency":
                    return "200 OK", self._measure(environ)
            raise _RefusedError("404 Not Found", "there are GET /status and POST /latency")
        except _RefusedError as refused:
            return refused.status, {"error": refused.text}

    def _status(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "processor": processor_name(),
            "onnxruntime_version": onnxruntime.__version__,
            "providers": onnxruntime.get_available_providers(),
            "n_cores": os.cpu_count(),
            "is_measuring": self._device.locked(),
            "max_bytes": self._max_bytes,
            "time_limit_s": self._time_limit_s,
        }

    def _measure(self, environ: dict[str, Any]) -> dict[str, Any]:
        options, size = self._asked(environ)
        content = environ["wsgi.input"].read(size)
        if len(content) != size:
            raise _RefusedError("400 Bad Request", f"the file was cut off after {len(content)} of {size} bytes")
        if _DATA_ELSEWHERE in content:
            raise _RefusedError(_NO_MODEL, "the file's weights lie in another file")
        if not self._places.acquire(blocking=False):
            raise _RefusedError("429 Too Many Requests", "too many measurements are waiting; ask again later")
        try:
            with self._device:
                found = measured(content, options, time_needed(options))
        except OSError as error:
            raise _RefusedError("507 Insufficient Storage", f"the board cannot measure: {error}") from error
        finally:
            self._places.release()
        if found.get("lost"):
            raise _RefusedError("501 Not Implemented", str(found["error"]))
        if "error" in found:
            raise _RefusedError(_NO_MODEL, str(found["error"]))
        return found

    def _asked(self, environ: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Return the options of a request and the size of its file."""
        text = str(environ.get(_OPTIONS, "{}"))
        try:
            if len(text) > _MAX_OPTIONS:
                raise ValueError(f"they have over {_MAX_OPTIONS} characters")
            options: dict[str, Any] = json.loads(text)
            options_of(options)
            size, limit = int(environ.get("CONTENT_LENGTH") or 0), time_needed(options)
        except (ValueError, TypeError, RecursionError, AttributeError) as error:
            raise _RefusedError("400 Bad Request", f"the options are faulty: {error}") from error
        if not 0 < size <= self._max_bytes:
            raise _RefusedError("413 Content Too Large", f"a file must have 1 to {self._max_bytes} bytes, got {size}")
        if limit > self._time_limit_s:
            raise _RefusedError(
                "400 Bad Request",
                f"with this time_limit_s a measurement may take {limit:g} s; this server allows {self._time_limit_s:g}",
            )
        return options, size


class _RefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: Of HTTP.
        text: What the client is told.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def _token(path: Path | None) -> str:
    """Return the token of a file, or a new one, which is printed."""
    if path is not None:
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SystemExit(f"--token-file: {path} cannot be read: {error}") from error
        if len(token) < 16 or not token.isprintable():
            raise SystemExit(f"--token-file: {path} must hold at least 16 printable characters")
        return token
    token = secrets.token_urlsafe(24)
    print(f"token: {token}", file=sys.stderr, flush=True)
    return token


def serve(host: str, port: int, token_file: Path | None, max_mib: int, n_queue: int, time_limit_s: float) -> None:
    """Serve until the process is stopped.

    Raises:
        SystemExit: When it is stopped; if the address cannot be taken or the token cannot be read, in words.
    """
    try:
        import waitress  # noqa: PLC0415 - only a server needs it
    except ImportError:
        raise SystemExit("serving needs waitress: pip install waitress") from None
    stopped_by = signal.SIGINT

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = signal.Signals(number)
        raise SystemExit

    signal.signal(signal.SIGTERM, stop)
    token, max_bytes = _token(token_file), max_mib << 20
    application = Application(token, max_bytes, n_queue, time_limit_s)
    try:
        server = waitress.create_server(
            application,
            host=host,
            port=port,
            threads=n_queue + 1 + _BESIDE,
            connection_limit=4 * (n_queue + 1 + _BESIDE),
            max_request_body_size=max_bytes + 1,
            channel_timeout=60,
            ident=None,
        )
    except (OSError, ValueError) as error:
        raise SystemExit(f"{host}:{port} cannot be served: {error}") from error
    if host not in _LOOPBACK:
        print(f"{host} is seen by others, and what is sent is not encrypted: an SSH tunnel is safer", file=sys.stderr)
    print(f"serving on {host}:{server.effective_port}", file=sys.stderr, flush=True)
    try:
        server.run()  # it ends without an error when it is stopped
    finally:
        end_all()
        server.close()
    raise SystemExit(128 + stopped_by)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m latency.serving", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, for an SSH tunnel")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--token-file", type=Path, help="the token; without it a new one is printed")
    parser.add_argument("--max-mib", type=int, default=256, help="of a file")
    parser.add_argument("--queue", type=int, default=4, help="measurements that may wait")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds of the longest measurement")
    given = parser.parse_args(arguments)
    serve(given.host, given.port, given.token_file, given.max_mib, given.queue, given.time_limit)
