"""A candidate that does its worst to the process that evaluates it: an attempt is lost, and the search goes on."""

import ctypes
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.errors import LostProcessError, MachineError
from nas.evaluation import Ended, Evaluator, FunctionStage, Job, Reading
from nas.execution import ProcessPoolExecutor, SerialExecutor, machine
from nas.execution.machine import check_machine
from nas.execution.worker_process import WorkerProcess
from nas.values.records import Candidate, RecordState
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=3, n_values=10)
EXECUTORS = {
    "serial": SerialExecutor,
    "process_pool": functools.partial(ProcessPoolExecutor, n_workers=1),
}


def evaluator(*functions, **options):
    stages = tuple(FunctionStage(str(number), function) for number, function in enumerate(functions))
    return Evaluator({SPACE.name: SPACE}, stages, None, frozenset(map(str, range(len(functions)))), **options)


def jobs(n):
    return [Job(Candidate.create(SPACE, SPACE.genotype((i, 0, 0)), 0)) for i in range(n)]


def ends(executor, work, todo, measure=False):
    events = []
    with executor:
        (executor.measure if measure else executor.run)(work, todo, events.append)
    by_id = {event.candidate: event for event in events if isinstance(event, Ended)}
    assert len(by_id) == len(todo) == sum(isinstance(event, Ended) for event in events)
    return [by_id[job.candidate.id] for job in todo], events


def on_one(act):
    """Return a metric that lets candidate 1 `act`."""
    return functools.partial(_metric, act)


def _metric(act, subject):
    if subject.genotype.genes[0] == 1:
        act()
    return 1.0


def segfault():
    ctypes.string_at(0)


def exit_at_once():
    os._exit(0)


def exit_politely():
    sys.exit(0)


def exit_with_a_text():
    sys.exit("enough")


def interrupt():
    raise KeyboardInterrupt


def signal_in_real_time():
    os.kill(os.getpid(), signal.SIGRTMIN + 3)


def kill_the_group():
    os.killpg(0, signal.SIGKILL)


def kill_the_server():
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(1)


def close_everything():
    os.closerange(3, 256)


KILLS = {
    segfault: "its process died by SIGSEGV",
    exit_at_once: "its process died with exit code 0",
    exit_politely: "its process died with exit code 0",
    exit_with_a_text: "its process died with exit code 1",
    interrupt: "its process died with exit code 1",
    signal_in_real_time: f"its process died by signal {signal.SIGRTMIN + 3}",
    kill_the_group: "its process died by SIGKILL (out of memory?)",
    kill_the_server: "its process died with",
    close_everything: "its process died",
}


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("act", KILLS, ids=lambda act: act.__name__)
def test_a_candidate_that_kills_its_process_loses_two_attempts_and_no_other_any(kind, act, capfd):
    todo = jobs(3)
    verdicts, _ = ends(EXECUTORS[kind](), evaluator(on_one(act)), todo)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [False, True, False]
    assert verdicts[1].attempts == 2
    assert verdicts[1].failure.reason.startswith(f"given up after 2 attempts; in the last one {KILLS[act]}")
    capfd.readouterr()


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("act", [segfault, exit_politely], ids=lambda act: act.__name__)
def test_so_does_one_that_kills_it_while_it_is_measured(kind, act, capfd):
    verdicts, _ = ends(EXECUTORS[kind](), evaluator(on_one(act)), jobs(3), measure=True)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [False, True, False]
    capfd.readouterr()


def hang():
    signal.pause()


def hang_deaf_to_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    signal.sigwait([])


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("measure", [False, True], ids=["training", "measuring"])
def test_a_hang_ends_with_the_limit_in_training_and_in_measuring(kind, measure):
    executor = EXECUTORS[kind](candidate_timeout_s=0.3)
    verdicts, _ = ends(executor, evaluator(on_one(hang)), jobs(3), measure=measure)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [False, True, False]
    assert verdicts[1].failure.reason.endswith("it ran longer than execution.candidate_timeout_s = 0.3")


def die_beside_a_child(path):
    if os.fork() == 0:
        path.write_text(str(os.getpid()))
        signal.pause()  # holding all that it inherited
    while not (path.exists() and path.read_text()):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_worker_is_seen_though_its_child_lives_and_that_is_ended(tmp_path):
    path = tmp_path / "pid"
    executor = SerialExecutor()  # whose limit is a day
    verdicts, _ = ends(executor, evaluator(on_one(functools.partial(die_beside_a_child, path))), jobs(3))
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [False, True, False]
    assert_gone(int(path.read_text()))


def assert_gone(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        if "State:\tZ" in status:  # dead; whoever adopted it has not looked yet
            return
    raise AssertionError(f"process {pid} lives")


def returns_twice(subject):
    os.fork()
    return float(subject.genotype.genes[0])


def raises_twice(subject):
    os.fork()
    raise ValueError("twice")


@pytest.mark.parametrize("options", [{}, {"isolated": False}])
@pytest.mark.parametrize("function", [returns_twice, raises_twice])
def test_a_metric_that_returns_twice_answers_once(options, function):
    verdicts, events = ends(SerialExecutor(**options), evaluator(function), jobs(3))
    expected = RecordState.COMPLETE if function is returns_twice else RecordState.FAILED
    assert [verdict.state for verdict in verdicts] == [expected] * 3
    assert sum(isinstance(event, Reading) for event in events) == (3 if function is returns_twice else 0)


class SpeechlessError(Exception):
    def __str__(self):
        raise self


def raise_speechless():
    raise SpeechlessError


@pytest.mark.parametrize("options", [{}, {"isolated": False}])
def test_an_error_without_a_text_is_a_failure_like_others(options):
    verdicts, _ = ends(SerialExecutor(**options), evaluator(on_one(raise_speechless)), jobs(2))
    assert verdicts[1].failure.reason == "SpeechlessError: (its text raises SpeechlessError)"


def test_what_is_measured_again_cannot_end_the_search_either(capfd):
    with SerialExecutor() as executor:
        assert executor.call(len, "three") == 5
        with pytest.raises(LostProcessError, match="died by SIGSEGV"):
            executor.call(segfault)
        with pytest.raises(ZeroDivisionError):
            executor.call(divmod, 1, 0)
        assert executor.call(os.getpid) != os.getpid()
    assert SerialExecutor(isolated=False).call(os.getpid) == os.getpid()


def test_a_server_that_died_is_started_again():
    with SerialExecutor() as executor:
        server = executor.call(os.getppid)
    os.kill(server, signal.SIGKILL)
    with SerialExecutor() as executor:
        assert executor.call(os.getppid) != server


def evaluate_in_a_fork(connection):
    with SerialExecutor() as executor:
        connection.send(executor.call(len, "four"))


def test_a_process_that_was_forked_starts_a_server_of_its_own():
    with SerialExecutor() as executor:
        executor.call(len, "")
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=evaluate_in_a_fork, args=(theirs,))
        process.start()
        assert ours.recv() == 4
        process.join()


def test_the_environment_of_a_worker_is_that_of_now(monkeypatch):
    with SerialExecutor() as executor:
        executor.call(len, "")
    monkeypatch.setenv("SET_AFTER_THE_SERVER_STARTED", "yes")
    with SerialExecutor() as executor:
        assert executor.call(os.getenv, "SET_AFTER_THE_SERVER_STARTED") == "yes"


PARENT = """
import os, sys, threading
from nas.execution import SerialExecutor
from tests.nas.execution.test_isolation import has_child

if __name__ == "__main__":
    with SerialExecutor() as executor:
        print(*executor.call(has_child), flush=True)
        threading.Event().wait()
"""


def has_child():
    """Leave a child behind, deaf to the end of its parent; return both."""
    child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    return os.getpid(), child.pid, os.getppid()


@pytest.mark.slow
def test_workers_and_their_children_end_with_a_parent_that_is_killed(tmp_path):
    """Its fast sibling kills a worker alone, beside its child."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.communicate()
    for pid in pids:
        assert_gone(pid)


def die_by_sigbus():
    os.kill(os.getpid(), signal.SIGBUS)


def test_an_attempt_lost_beside_a_damaged_file_is_the_machines(tmp_path, capfd):
    logits = tmp_path / "logits.npy"
    with SerialExecutor() as executor:
        logits.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (100,), }")
        with pytest.raises(
            MachineError, match=r"logits.npy cannot be read, and an attempt was lost \(its process died"
        ):
            executor.run(evaluator(on_one(die_by_sigbus), files=(logits,)), jobs(3), lambda event: None)


def test_want_of_memory_that_stays_when_its_process_is_gone_is_the_machines(monkeypatch):
    work, reason = evaluator(), "its process died by SIGKILL (out of memory?)"
    monkeypatch.setattr(machine, "free_and_total_bytes", lambda: (2**28, 2**33))
    check_machine(work, reason, is_last=False)
    check_machine(work, "its process died by SIGSEGV", is_last=True)
    with pytest.raises(MachineError, match=r"this machine has 0.25 GiB of 8.00 GiB of memory free"):
        check_machine(work, reason, is_last=True)
    monkeypatch.setattr(machine, "free_and_total_bytes", lambda: (2**32, 2**33))
    check_machine(work, reason, is_last=True)


def test_the_memory_is_that_of_the_control_group_where_it_has_a_limit(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  8192 kB\nMemFree: 1 kB\nMemAvailable:  4096 kB\n")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_GROUP", tmp_path)
    assert machine.free_and_total_bytes() == (2**22, 2**23)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1048576\n")
    assert machine.free_and_total_bytes() == (2**22, 2**23)
    (tmp_path / "memory.max").write_text("2097152\n")
    assert machine.free_and_total_bytes() == (2**20, 2**21)


def test_without_descriptors_no_worker_starts_and_nobody_is_blamed(monkeypatch):
    def fail():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("nas.execution.worker_process.start_server", fail)
    with pytest.raises(MachineError, match=r"no worker process can be started: .* raise the limit of open files"):
        WorkerProcess(n_threads=1)
