"""How commands stop: by signals, and by faults of the machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nas
from nas.cli.search import with_empty_cause
from nas.cli.signals import Stopped, StopSignals
from nas.values.records import RecordState

ROOT = Path(__file__).parents[3]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def start(*arguments, stdout=subprocess.PIPE, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "nas", *map(str, arguments)],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def processes_of(session):
    """Return the command lines of processes that name `session`, a path that only a test's processes know."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"STOPPING_TEST={session}".encode() in environment.split(b"\0"):
            found.append((folder.name, (folder / "cmdline").read_bytes()))
    return found


def until_nobody_is_left(session):
    deadline = time.monotonic() + 10
    while left := processes_of(session):
        assert time.monotonic() < deadline, left


def temporary_files(folder):
    kept = (".lock", ".ses")  # the lock of a run, and what onnxruntime writes into the folder of temporary files
    return [path for path in folder.rglob("*") if path.name.startswith(".") and path.name not in kept]


def wait_for_line(process, text):
    line = ""
    while text not in line:
        line = process.stdout.readline()
        assert line, process.stderr.read()


SIGNALS = [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP))]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_search_stops_within_seconds_and_says_how_to_resume(command, tiny_config, tmp_path, number):
    path = tmp_path / "runs" / "run"
    workers = "execution={kind: process_pool, n_workers: 2}"
    options = ("--run-dir", path, "--set", workers, "--set", "controller.n_generations=300")
    process = start("search", tiny_config, *options, env={**os.environ, "STOPPING_TEST": str(path)})
    wait_for_line(process, "1/1200 ")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (CODES[number], "")
    assert "Everything computed so far is stored. To resume:" in out
    assert f"nas search {tiny_config} --run-dir {path} --set" in out
    assert "controller.n_generations=300 --resume" in out
    until_nobody_is_left(path)
    assert temporary_files(tmp_path) == []
    before = nas.load_run(path)
    assert {r.state for r in before.records} > {RecordState.ASKED}
    code, _, _ = command("search", tiny_config, "--run-dir", path, "--set", "controller.n_generations=1", "--resume")
    assert code == 0
    after = {record.id: record.metrics.get("accuracy") for record in nas.load_run(path).records}
    assert all(after[r.id] == r.metrics["accuracy"] for r in before.records if r.is_complete)


LONG = ("--set", "teacher.recipe.epochs=100000", "--set", "data.n_train=32")


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("name", ["teacher", "retrain", "dry-run"])
def test_every_command_stops_alike(tiny_config, tiny_run, tmp_path, number, name):
    copy = tmp_path / "runs" / "run"
    shutil.copytree(tiny_run.parent, copy.parent)
    best = nas.load_run(tiny_run).front[0].id
    command = {
        "teacher": ("teacher", tiny_config, "--run-dir", tmp_path / "other" / "run", *LONG),
        "retrain": ("retrain", copy.parent / tiny_run.name, "--candidate", best, "--epochs", "1000000"),
        "dry-run": ("search", tiny_config, "--run-dir", tmp_path / "other" / "run", "--dry-run", *LONG),
    }[name]
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    process = start(*command, env={**os.environ, "STOPPING_TEST": str(tmp_path), "TMPDIR": str(tmp_path)})
    time.sleep(12 if name != "dry-run" else 6)
    assert process.poll() is None, process.communicate()
    started = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert (process.returncode, err) == (CODES[number], "")
    until_nobody_is_left(tmp_path)
    assert temporary_files(tmp_path) == []
    assert set(before) <= set(tmp_path.rglob("*"))


def test_the_first_signal_stops_and_later_ones_do_not_disturb_that(monkeypatch):
    monkeypatch.setattr("nas.cli.signals._GRACE_S", 3600.0)  # this process goes on
    with pytest.raises(Stopped), StopSignals() as signals:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            for number in CODES:
                signal.raise_signal(number)
    assert signals.exit_code == 143
    for number, handler in signals._before.items():
        signal.signal(number, handler)


def test_without_a_signal_all_handlers_are_as_before():
    before = [signal.getsignal(number) for number in CODES]
    with StopSignals() as signals:
        assert [signal.getsignal(number) for number in CODES] != before
    assert [signal.getsignal(number) for number in CODES] == before
    assert signals.number is None


def test_what_is_ignored_from_the_start_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


STUCK = """
import sys, threading
from nas.cli import app, signals
signals._GRACE_S = 0.2

def stuck(*arguments, **options):
    print("stuck", flush=True)
    while True:  # a library that lets nothing through
        try:
            threading.Event().wait()
        except BaseException:
            pass

app.app = stuck
app.main()
"""


def test_a_command_that_cannot_stop_is_ended():
    process = subprocess.Popen([sys.executable, "-c", STUCK], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for_line_of(process, "stuck")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def wait_for_line_of(process, text):
    while text not in (line := process.stdout.readline()):
        assert line


def test_a_damaged_artifact_is_made_again_and_that_is_said(command, tiny_config, tiny_run, tmp_path):
    copy = tmp_path / "runs" / tiny_run.name
    shutil.copytree(tiny_run.parent, copy.parent)
    (logits,) = (copy.parent / "artifacts").glob("teacher-logits-*.npy")
    whole = logits.read_bytes()
    os.truncate(logits, 200)
    options = ("--run-dir", copy, "--set", "controller.n_generations=4")
    code, out, err = command("search", tiny_config, *options, "--resume")
    assert (code, err) == (0, "")
    assert "it is made again" in out
    assert logits.read_bytes() == whole
    assert nas.load_run(copy).finished_size == 16


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["search", __file__, "--retry-failed"], ["search", __file__, "--retry-failed="]),
        (["search", __file__, "--retry-failed", "--resume"], ["search", __file__, "--retry-failed=", "--resume"]),
        (["search", "--retry-failed", __file__], ["search", "--retry-failed=", __file__]),
        (["search", __file__, "--retry-failed", "training"], ["search", __file__, "--retry-failed", "training"]),
        (["search", __file__, "--retry-failed=training"], ["search", __file__, "--retry-failed=training"]),
    ],
)
def test_the_cause_of_failures_may_be_left_out(given, expected):
    assert with_empty_cause(given) == expected
