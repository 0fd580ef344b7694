"""A board and its client over a real socket on the loopback, and all that goes wrong between them."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import onnx
import pytest
from torch import nn

import latency
from latency.devices import DEVICES
from latency.devices.remote_device import RemoteDevice
from latency.errors import DeviceUnavailableError, MeasurementError, UnsupportedMeasurementError
from latency.graph.onnx_writer import write_onnx_to_measure
from latency.serving.measuring import measured
from latency.timing.clocks import processor_name

ROOT = Path(latency.__file__).parents[1]
SHAPE = (3, 16, 16)
TOKEN = "a token of this test alone"  # noqa: S105
WITHOUT_TORCH = """\
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "pydantic", "sklearn", "scipy", "onnx", "nas", "typer"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.argv[0] = "serving"
runpy.run_module("latency.serving", run_name="__main__")
"""


def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2)).eval()


class Board:
    """A server in a process that can import neither torch nor anything else that a board lacks."""

    def __init__(self, token_file, *options, port=0, folder=None):
        command = [sys.executable, "-c", WITHOUT_TORCH, "--port", str(port), "--token-file", str(token_file), *options]
        env = os.environ | {"PYTHONPATH": str(ROOT)} | ({"TMPDIR": str(folder)} if folder else {})
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        said = ""
        while not (found := re.search(r"serving on 127.0.0.1:(\d+)", said)):
            line = self.process.stderr.readline()
            assert line, said
            said += line
        self.port = int(found[1])

    def stop(self):
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def board(*arguments, **options):
    found = Board(*arguments, **options)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture(scope="module")
def served(token_file):
    with board(token_file, "--max-mib", "1", "--queue", "0", "--time-limit", "100") as found:
        yield found


@pytest.fixture
def device(served, token_file):
    return remote(served.port, token_file)


def remote(port, token_file, **options):
    return RemoteDevice(
        url=f"http://127.0.0.1:{port}", token_file=token_file, **{"n_runs": 20, "wait_s": 0.0, **options}
    )


def asked(port, content=b"", options="{}", token=TOKEN, place="/latency", method="POST"):
    headers = {"Authorization": f"Bearer {token}", "X-Latency-Options": options}
    return httpx.request(method, f"http://127.0.0.1:{port}{place}", content=content, headers=headers, timeout=60)


def test_a_board_without_torch_measures(device):
    device.check()
    stats = device.measure_latency(model(), SHAPE)
    assert 0 < stats.median_ms < 1000
    assert stats.n_runs >= 1
    assert stats.conditions["runtime"] == "onnxruntime"
    assert stats.conditions["board"] == device.url
    assert stats.conditions["input_shape"] == list(SHAPE)
    assert DEVICES["remote"] is RemoteDevice
    with pytest.raises(UnsupportedMeasurementError):
        device.measure_peak_memory(model(), SHAPE)


def test_a_wrong_token_is_refused_and_a_missing_one_never_sent(served, tmp_path, monkeypatch):
    wrong = tmp_path / "wrong"
    wrong.write_text("another token, long enough")
    with pytest.raises(DeviceUnavailableError, match=r"refuses: the token is missing or wrong"):
        remote(served.port, wrong).check()
    monkeypatch.delenv("NAS_BOARD_TOKEN", raising=False)
    with pytest.raises(DeviceUnavailableError, match="NAS_BOARD_TOKEN does not hold the board's token"):
        remote(served.port, None).check()
    with pytest.raises(DeviceUnavailableError, match="cannot be read"):
        remote(served.port, tmp_path / "none").check()
    monkeypatch.setenv("NAS_BOARD_TOKEN", TOKEN)
    remote(served.port, None).check()
    assert asked(served.port, b"x", token="x").status_code == 401  # noqa: S106
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(DeviceUnavailableError, match="empty holds no token"):
        remote(served.port, empty).check()


@pytest.mark.parametrize(
    ("content", "options", "status", "said"),
    [
        (b"", '{"input_shape": [3]}', 413, "1 to 1048576 bytes, got 0"),
        (b"x", "{", 400, "the options are faulty"),
        (b"x", "[" * 4000, 400, "the options are faulty"),
        (b"x", "{" + " " * 5000 + "}", 400, "over 4096 characters"),
        (b"x", "[]", 400, "the options are faulty"),
        (b"x", "{}", 400, "input_shape"),
        (b"x", '{"input_shape": [3, -1]}', 400, "input_shape"),
        (b"x", '{"input_shape": [3], "run": "rm"}', 400, "unknown options run"),
        (b"x", '{"input_shape": [3], "n_threads": "2"}', 400, "n_threads must be a number"),
        (b"x", '{"input_shape": [3], "execution_provider": "os"}', 400, "execution_provider must be one of"),
        (b"x", '{"input_shape": [3], "time_limit_s": 1e5}', 400, "this server allows 100"),
        (b"no model at all", '{"input_shape": [3]}', 422, "onnxruntime cannot run the file"),
        (b"weights \x0a\x08location elsewhere", '{"input_shape": [3]}', 422, "weights lie in another file"),
    ],
)
def test_bad_requests_are_answered_in_words(served, content, options, status, said):
    answer = asked(served.port, content, options)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text


def test_a_file_that_is_too_large_is_refused(served):
    answer = asked(served.port, b"x" * (1 << 20) + b"xx", '{"input_shape": [3]}')
    assert answer.status_code == 413


def test_other_places_are_not_served(served):
    assert asked(served.port, place="/", method="GET").status_code == 404
    assert asked(served.port, place="/latency", method="GET").status_code == 404
    status = asked(served.port, place="/status", method="GET").json()
    assert status["format"] == "pareto-nas latency server 1"
    assert status["is_measuring"] is False


def test_what_a_board_lacks_is_the_boards_fault_and_known_beforehand(served, token_file, tmp_path):
    device = remote(served.port, token_file, execution_provider="coreml")
    with pytest.raises(DeviceUnavailableError, match="has no CoreMLExecutionProvider, only .*CPUExecutionProvider"):
        device.check()
    with pytest.raises(DeviceUnavailableError, match="refuses: onnxruntime .* has no CoreMLExecutionProvider"):
        device.measure_latency(model(), SHAPE)  # no fault of the model's
    with pytest.raises(DeviceUnavailableError, match=r"measures for 100.0 s at most; time_limit_s 50 may take 130 s"):
        remote(served.port, token_file, time_limit_s=50).check()
    assert remote(served.port, token_file).processor() == processor_name()


def test_a_measurement_is_ended_at_its_time_limit():
    found = measured(b"x", {"input_shape": [3]}, 0.01)  # no process starts as quickly
    assert found == {"error": "the measurement took over 0.01 s and was ended"}


def test_nas_serves_the_same(token_file):
    command = [sys.executable, "-m", "nas", "latency", "serve", "--port", "0", "--token-file", str(token_file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        port = int(process.stderr.readline().rpartition(":")[2])
        remote(port, token_file).check()
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 143
    finally:
        process.kill()


def test_a_model_with_another_input_is_the_models_fault(served, device, tmp_path):
    path = tmp_path / "net.onnx"
    write_onnx_to_measure(model(), SHAPE, path)
    with pytest.raises(MeasurementError, match=r"cannot measure the model: .*onnxruntime"):
        device.measure_file(path, (3, 5, 5))
    graph = onnx.load(path)
    graph.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(graph, path)
    with pytest.raises(MeasurementError, match="NoSuchOperator"):
        device.measure_file(path, SHAPE)
    device.check()  # the server lives


def test_a_dropped_connection_and_half_a_request_do_not_hold_the_server_up(served, device):
    for content in (b"POST /latency HTTP/1.1\r\nContent-Length: 99", b"\x00\xff" * 50 + b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
            connection.sendall(content)
    device.check()


def slow_file(tmp_path):
    """A file whose measurement takes seconds."""
    path = tmp_path / "slow.onnx"
    write_onnx_to_measure(nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(6))).eval(), (8, 160, 160), path)
    options = {"input_shape": [8, 160, 160], "n_runs": 10**5, "relative_interval": None, "time_limit_s": 3}
    return path.read_bytes(), json.dumps(options)


def test_two_clients_one_is_measured_the_other_waits_aloud(served, token_file, tmp_path, caplog):
    content, options = slow_file(tmp_path)
    answers = []
    busy = threading.Thread(target=lambda: answers.append(asked(served.port, content, options)))
    busy.start()
    while not asked(served.port, place="/status", method="GET").json()["is_measuring"]:
        time.sleep(0.05)
    assert asked(served.port, content, options).status_code == 429
    stats = remote(served.port, token_file, wait_s=60.0).measure_latency(model(), SHAPE)
    busy.join()
    assert answers[0].status_code == 200
    assert stats.median_ms > 0
    assert "too many measurements are waiting" in caplog.text


def test_a_killed_server_is_waited_for_aloud_and_then_used(token_file, tmp_path, caplog):
    first = Board(token_file)
    device = remote(first.port, token_file, wait_s=60.0)
    device.check()
    first.stop()
    boards = []
    timer = threading.Timer(1.5, lambda: boards.append(Board(token_file, port=first.port)))
    timer.start()
    try:
        assert device.measure_latency(model(), SHAPE).median_ms > 0
    finally:
        timer.join()
        for found in boards:
            found.stop()
    assert re.search(r"the board at .* cannot be used \(ConnectError.*waiting for", caplog.text)


def test_a_board_that_stays_away_is_an_error_after_the_wait(token_file):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    device = remote(port, token_file, wait_s=0.5)
    with pytest.raises(DeviceUnavailableError, match=r"was waited for 0.5 s in vain: ConnectError"):
        device.measure_latency(model(), SHAPE)
    with pytest.raises(DeviceUnavailableError, match="cannot be used: ConnectError"):
        device.check()


def test_something_else_that_serves_there_is_told_apart(token_file):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DeviceUnavailableError, match="is no latency server"):
            remote(server.getsockname()[1], token_file).check()
        thread.join()


def measuring_in(folder):
    """Return how many processes measure a file in `folder`."""
    n = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes()
            n += b"latency.serving.measuring" in command and str(folder).encode() in command
    return n


def cut_off(found, content, options):
    with contextlib.suppress(httpx.TransportError):
        asked(found.port, content, options)


def test_sigterm_ends_the_server_and_its_measurement(token_file, tmp_path):
    content, options = slow_file(tmp_path)
    with board(token_file, folder=tmp_path) as found:
        thread = threading.Thread(target=cut_off, args=(found, content, options))
        thread.start()
        while not asked(found.port, place="/status", method="GET").json()["is_measuring"]:
            time.sleep(0.05)
        while not measuring_in(tmp_path):
            time.sleep(0.05)
        found.process.terminate()
        found.process.communicate(timeout=20)
        assert found.process.returncode == 143
        thread.join()
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    assert not any(
        b"latency.serving.measuring" in command and str(tmp_path).encode() in command for command in commands
    )


@pytest.mark.parametrize("text", ["", "short", "0123456789012345\x07"])
def test_a_bad_token_file_is_refused(text, tmp_path):
    path = tmp_path / "token"
    path.write_text(text)
    command = [sys.executable, "-m", "latency.serving", "--port", "0", "--token-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "must hold at least 16 printable characters" in done.stderr


def test_a_port_that_is_taken_is_said(served, token_file):
    command = [sys.executable, "-m", "latency.serving", "--port", str(served.port), "--token-file", str(token_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert f"127.0.0.1:{served.port} cannot be served" in done.stderr


def test_the_board_needs_what_its_list_says():
    listed = (ROOT / "latency" / "serving" / "requirements.txt").read_text()
    assert re.findall(r"^(\w+)", listed, re.MULTILINE) == ["numpy", "onnxruntime", "waitress"]


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ValueError, match="url must begin with http"):
        RemoteDevice(url="board:8765")
