"""Executors: the conformance of each entry of EXECUTORS, and what a dying worker costs."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from nas.errors import DataError, InputError
from nas.evaluation import Ended, Evaluator, FunctionStage, Job, Reading
from nas.evaluation.verdicts import memory_fault
from nas.execution import EXECUTORS, ProcessPoolExecutor, SerialExecutor, process_pool, time_limit, worker_pool
from nas.execution.time_limit import TimeLimit
from nas.execution.worker_pool import WorkerPool
from nas.execution.worker_process import WorkerProcess
from nas.values.objectives import Constraint
from nas.values.records import Candidate, Failure, RecordState
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=3, n_values=10)
OPTIONS = {
    "serial": {},
    "process_pool": {"n_workers": 2},
    "ray": {"address": "local", "resources_per_candidate": {"cpu": 0.5}},
}
NO_CLOSE = """
from nas.evaluation import Evaluator, FunctionStage, Job
from nas.execution import ProcessPoolExecutor
from nas.values.records import Candidate
from search_spaces.spaces.integers import Integers

def one(subject):
    return 1.0

if __name__ == "__main__":
    space = Integers(n_genes=1, n_values=2)
    pool = ProcessPoolExecutor(n_workers=1)
    work = Evaluator({space.name: space}, (FunctionStage("one", one),), None)
    pool.run(work, [Job(Candidate.create(space, space.genotype((0,)), 0))], lambda event: None)
    print(pool._pool.workers[0].process.pid)
"""


def first_gene(subject):
    return subject.genotype.genes[0]


def fails_on_three(subject):
    if subject.genotype.genes[0] == 3:
        raise ZeroDivisionError("three")
    return 1.0


def not_a_number_on_three(subject):
    return float("nan") if subject.genotype.genes[0] == 3 else 1.0


def kills_its_process_on_three(subject):
    if subject.genotype.genes[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def kills_its_process_once(subject):
    if subject.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def naps(subject):
    time.sleep(0.2)
    return 1.0


def naps_or_dies(subject):
    return naps(subject) if subject.attempt == 2 else kills_its_process_once(subject)


def is_given_bad_data(subject):
    raise DataError(["images/x.png: unreadable"])


class SeesGpus:
    """Tells which GPUs were to be seen when it was unpickled, which may already initialise CUDA."""

    def __init__(self):
        self.seen = ""

    def __setstate__(self, state):
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def __getstate__(self):
        return {"seen": self.seen}

    def __call__(self, subject):
        return float(self.seen or "nan")


def evaluator(*functions):
    stages = tuple(FunctionStage(function.__name__, function) for function in functions)
    return Evaluator({SPACE.name: SPACE}, stages, None, frozenset(f.__name__ for f in functions))


def jobs(n=6, **options):
    return [Job(Candidate.create(SPACE, SPACE.genotype((i, 0, 0)), 0), **options) for i in range(n)]


def run(executor, work, todo):
    events = []
    with executor:
        executor.run(work, todo, events.append)
    return events


def ends(events, todo):
    by_id = {event.candidate: event for event in events if isinstance(event, Ended)}
    assert len(by_id) == len(todo) == sum(isinstance(event, Ended) for event in events)
    return [by_id[job.candidate.id] for job in todo]


def test_every_executor_is_tested():
    assert OPTIONS.keys() == EXECUTORS.keys()


SLOW = {"ray"}  # whose processes take seconds to start; its fast tests are in test_ray_cluster.py


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in EXECUTORS])
def executor(request):
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    return EXECUTORS[request.param](**OPTIONS[request.param])


@pytest.mark.parametrize("work", [naps, naps_or_dies])  # whoever replaces a worker has its name
def test_the_end_says_who_worked_and_how_long(work):
    todo = jobs()
    found = ends(run(ProcessPoolExecutor(n_workers=2), evaluator(work), todo), todo)
    assert {end.worker for end in found} == {"worker 1", "worker 2"}
    assert all(end.failure is None and 0.2 <= end.seconds < 2 for end in found)
    (measured,) = ends(_measured(todo[:1]), todo[:1])
    assert measured.worker == "measuring 1"


def _measured(todo):
    events = []
    with ProcessPoolExecutor(n_workers=2) as executor:
        executor.measure(evaluator(naps), todo, events.append)
    return events


def test_every_job_ends_once_with_its_readings(executor):
    todo = jobs()
    events = run(executor, evaluator(first_gene), todo)
    assert [end.state for end in ends(events, todo)] == [RecordState.COMPLETE] * 6
    values = {event.candidate: event.observations[0].value for event in events if isinstance(event, Reading)}
    assert [values[job.candidate.id] for job in todo] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (fails_on_three, "ZeroDivisionError: three"),
        (not_a_number_on_three, "must be a finite number, got nan"),
    ],
)
def test_what_is_raised_and_nan_are_failures_of_that_candidate_alone(executor, function, reason):
    todo = jobs()
    verdicts = ends(run(executor, evaluator(function), todo), todo)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [i == 3 for i in range(6)]
    assert reason in verdicts[3].failure.reason
    assert verdicts[3].failure.stage == f"function:{function.__name__}"
    assert "Traceback" in verdicts[3].failure.traceback


def test_bounds_end_a_candidate_before_the_next_stage(executor):
    todo = jobs(constraints=(Constraint("first_gene", max=2),))
    events = run(executor, evaluator(first_gene, fails_on_three), todo)
    states = [end.state for end in ends(events, todo)]
    assert states == [RecordState.COMPLETE] * 3 + [RecordState.INFEASIBLE] * 3  # the fourth is never failed


def test_stages_that_were_done_are_left_out(executor):
    todo = jobs(metrics={"fails_on_three": 7.0}, stages_done=frozenset({"function:fails_on_three"}))
    events = run(executor, evaluator(fails_on_three), todo)
    assert not any(isinstance(event, Reading) for event in events)
    assert {end.state for end in ends(events, todo)} == {RecordState.COMPLETE}


def test_a_metric_that_no_stage_gave_is_a_failure(executor):
    work = Evaluator({SPACE.name: SPACE}, (), None, frozenset({"accuracy"}))
    todo = jobs(1)
    (end,) = ends(run(executor, work, todo), todo)
    assert (end.state, end.failure.reason) == (RecordState.FAILED, "no stage gave accuracy")


def test_a_fault_of_the_users_stops_everything(executor):
    with pytest.raises(InputError, match=r"images/x\.png"):
        run(executor, evaluator(is_given_bad_data), jobs())


def test_an_executor_can_be_used_again(executor):
    work, todo = evaluator(first_gene), jobs()
    assert len(ends(run(executor, work, todo), todo)) == len(ends(run(executor, work, todo), todo))


def test_a_candidate_that_kills_its_worker_twice_is_failed_and_the_others_go_on():
    todo = jobs()
    verdicts = ends(run(ProcessPoolExecutor(n_workers=2), evaluator(kills_its_process_on_three), todo), todo)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [i == 3 for i in range(6)]
    assert verdicts[3].attempts == 2
    assert "given up after 2 attempts; in the last one its process died by SIGKILL" in verdicts[3].failure.reason


def exits_on_three(subject):
    if subject.genotype.genes[0] == 3:
        os._exit(7)
    return 1.0


def hangs_on_three(subject):
    if subject.genotype.genes[0] == 3:
        threading.Event().wait()
    return 1.0


def runs_out_of_memory_on_three(subject):
    if subject.genotype.genes[0] == 3:
        raise MemoryError("no room for a third")
    return 1.0


def runs_out_of_cuda_memory_once(path, subject):
    if subject.attempt == 1:
        path.write_text(str(os.getpid()))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return float(os.getpid())


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (exits_on_three, "its process died with exit code 7"),
        (hangs_on_three, "it ran longer than execution.candidate_timeout_s = 0.3"),
        (runs_out_of_memory_on_three, "it ran out of memory: MemoryError: no room for a third"),
    ],
)
def test_a_process_lost_costs_its_candidate_two_attempts_and_nobody_else_anything(function, reason):
    todo = jobs(5)
    executor = ProcessPoolExecutor(n_workers=1, candidate_timeout_s=0.3)
    verdicts = ends(run(executor, evaluator(function), todo), todo)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [i == 3 for i in range(5)]
    assert verdicts[3].failure.reason == f"given up after 2 attempts; in the last one {reason}"
    assert verdicts[3].failure.stage == "execution"
    assert verdicts[3].attempts == 2


def test_by_default_the_limit_follows_from_what_was_measured():
    limit = TimeLimit()
    assert limit.seconds == 86_400
    limit.note_end(0.5)
    assert limit.seconds == 600
    limit.note_end(100.0)
    limit.note_end(60.0)
    assert limit.seconds == 2000
    assert limit.reason == (
        "it ran longer than 2000 s (20 times the longest candidate so far, at least 600 s; "
        "execution.candidate_timeout_s sets another limit)"
    )
    limit.forget()
    assert "longer than 86400 s (the limit while no candidate has ended;" in limit.reason


@pytest.mark.slow
def test_a_candidate_that_hangs_ends_by_default_too(monkeypatch):
    monkeypatch.setattr(time_limit, "_LEAST_S", 0.3)
    todo = jobs(5)
    verdicts = ends(run(ProcessPoolExecutor(n_workers=2), evaluator(hangs_on_three), todo), todo)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [i == 3 for i in range(5)]
    assert "20 times the longest candidate so far" in verdicts[3].failure.reason


def hangs_when_imported():
    threading.Event().wait()


class HangsWhenUnpickled:
    """Stands for an import that hangs: a worker that is given it never starts."""

    name, needs, provides = "hangs", frozenset(), frozenset({"x"})

    def __reduce__(self):
        return hangs_when_imported, ()


def test_a_worker_that_hangs_before_it_starts_is_ended(monkeypatch):
    monkeypatch.setattr(worker_pool, "START_LIMIT_S", 0.3)
    todo = jobs(1)
    work = Evaluator({SPACE.name: SPACE}, (HangsWhenUnpickled(),), None, frozenset({"x"}))
    (verdict,) = ends(run(ProcessPoolExecutor(n_workers=1), work, todo), todo)
    assert verdict.failure.reason == "given up after 2 attempts; in the last one its process did not start within 0.3 s"


def test_want_of_memory_ends_the_process_that_held_it(tmp_path):
    todo = jobs(1)
    stage = FunctionStage("pid", functools.partial(runs_out_of_cuda_memory_once, tmp_path / "first"))
    work = Evaluator({SPACE.name: SPACE}, (stage,), None, frozenset({"pid"}))
    events = run(ProcessPoolExecutor(n_workers=1), work, todo)
    (end,) = ends(events, todo)
    assert (end.state, end.attempts) == (RecordState.COMPLETE, 2)
    (reading,) = [event for event in events if isinstance(event, Reading)]
    first = int((tmp_path / "first").read_text())
    assert first != reading.observations[0].value
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


@pytest.mark.parametrize(
    ("reason", "is_want_of_memory"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("MemoryError: std::bad_alloc", True),
        ("RuntimeError: std::bad_alloc", True),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory", True),
        ("AcceleratorError: CUDA error: out of memory", True),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", False),
        ("ValueError: MemoryError: is not how this begins", False),
    ],
)
def test_want_of_memory_is_told_by_what_libraries_say(reason, is_want_of_memory):
    event = Ended("a", RecordState.FAILED, failure=Failure("training", reason, ""))
    expected = f"it ran out of memory: {reason}" if is_want_of_memory else None
    assert memory_fault(event) == expected


@pytest.mark.slow
def test_workers_end_with_a_program_that_closes_nothing(tmp_path):
    """They are no daemons, for which a program would wait; the next test is the fast sibling."""
    script = tmp_path / "program.py"
    script.write_text(NO_CLOSE)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(ended.stdout), 0)


def test_a_worker_that_was_stopped_leaves_nothing_to_be_stopped_at_the_end(monkeypatch):
    registered = []
    monkeypatch.setattr("atexit.register", registered.append)
    monkeypatch.setattr("atexit.unregister", registered.remove)
    worker = WorkerProcess(n_threads=1)
    assert registered == [worker.stop]
    worker.stop()
    assert (registered, worker.process.exitcode, worker.process.daemon) == ([], -signal.SIGKILL, False)


def test_what_the_parent_holds_of_a_gpu_is_given_back_before_workers_start(monkeypatch):
    told, new_worker = [], WorkerPool._new_worker
    monkeypatch.setattr("nas.execution.process_pool.free_unused_memory", lambda: told.append("freed"))
    monkeypatch.setattr(
        "nas.execution.worker_pool.WorkerPool._new_worker", lambda pool: told.append("worker") or new_worker(pool)
    )
    with ProcessPoolExecutor(n_workers=1) as executor:
        run(executor, evaluator(first_gene), jobs(1))
    assert told == ["freed", "worker"]


def test_serially_want_of_memory_costs_an_attempt_too():
    todo = jobs(5)
    verdicts = ends(run(SerialExecutor(), evaluator(runs_out_of_memory_on_three), todo), todo)
    assert [verdict.state is RecordState.FAILED for verdict in verdicts] == [i == 3 for i in range(5)]
    assert verdicts[3].attempts == 2
    assert "MemoryError: no room for a third" in verdicts[3].failure.reason


def test_jobs_are_taken_when_there_is_a_place_and_after_none_when_nothing_runs(executor):
    todo, running, log = jobs(6), set(), []

    def source():
        for index, job in enumerate(todo):
            if index % 3 == 0:
                yield None
                log.append(len(running))
            running.add(job.candidate.id)
            yield job

    def on_event(event):
        if isinstance(event, Ended):
            running.discard(event.candidate)

    with executor:
        executor.run(evaluator(first_gene), source(), on_event)
    assert log == [0, 0]
    assert not running


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_workers": 0}, "n_workers must be at least 1, got 0"),
        ({"candidate_timeout_s": 0.0}, "candidate_timeout_s must be positive, got 0.0"),
    ],
)
def test_options_of_the_pool_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ProcessPoolExecutor(**options)


def test_a_candidate_whose_worker_died_once_is_tried_again():
    todo = jobs(2)
    verdicts = ends(run(ProcessPoolExecutor(n_workers=2), evaluator(kills_its_process_once), todo), todo)
    assert [(verdict.state, verdict.attempts) for verdict in verdicts] == [(RecordState.COMPLETE, 2)] * 2


@pytest.mark.parametrize("kind", EXECUTORS)
def test_threads_are_an_option_of_their_own(kind):
    with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
        EXECUTORS[kind](n_threads=0)


def test_serial_is_in_this_process_if_wanted():
    seen = []

    def process(subject):
        seen.append(os.getpid())
        return 1.0

    run(SerialExecutor(isolated=False), evaluator(process), jobs(2))
    assert seen == [os.getpid()] * 2


@pytest.mark.parametrize("before", [None, "4,5"])
def test_a_worker_sees_its_gpu_alone_before_anything_is_unpickled(monkeypatch, before):
    monkeypatch.setattr(process_pool, "visible_gpus", lambda: ["5", "4"])
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    stage = FunctionStage("gpu", SeesGpus())
    work = Evaluator({SPACE.name: SPACE}, (stage,), None, frozenset({"gpu"}), device="cuda")
    events = run(ProcessPoolExecutor(n_workers=2), work, jobs(2))
    seen = {event.observations[0].value for event in events if isinstance(event, Reading)}
    assert seen <= {4.0, 5.0}
    assert len(seen) > 0
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_what_cannot_be_sent_to_another_process_is_refused():
    with pytest.raises(InputError, match="use functions and classes that stand in modules, or .*isolated: false"):
        run(SerialExecutor(), evaluator(lambda subject: 1.0), jobs(1))
