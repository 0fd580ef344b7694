"""Ray: two nodes on this machine, one killed in the middle, one that comes late, one that carries a device."""

import dataclasses
import functools
import math
import os
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nas
from nas.analysis import to_json
from nas.errors import InputError
from nas.evaluation import Ended, Evaluator, FunctionStage, Job, Reading, Stage
from nas.execution import RayExecutor, ray_cluster, ray_devices, ray_places, ray_workers
from nas.execution.base import JobQueue
from nas.execution.ray_worker import NodeWorker
from nas.execution.ray_workers import WorkerGroup
from nas.execution.time_limit import TimeLimit
from nas.files import write_text
from nas.values.objectives import Constraint
from nas.values.records import Candidate, RecordState
from search_spaces.spaces.integers import Integers

ray = pytest.importorskip("ray", reason="Ray is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils")

SPACE = Integers(n_genes=3, n_values=10)


def here():
    return ray.get_runtime_context().get_node_id()


class Where(Stage):
    """Gives a number for the node that it runs on."""

    needs = frozenset()

    def __init__(self, name):
        self.name = name
        self.provides = frozenset({name})

    def run(self, subject):
        return subject.observe(self.name, {self.name: int(here()[:8], 16)})


class Stuck(Where):
    """Ends once the node that is to be lost is lost, and never there; only the first candidate does not care."""

    def __init__(self, name, flag):
        super().__init__(name)
        self.flag = flag

    def run(self, subject):
        while subject.genotype.genes[0] and (not self.flag.exists() or self.flag.read_text() == here()):
            time.sleep(0.05)
        return super().run(subject)


def node_number(node):
    return int(node.node_id[:8], 16)


def jobs(n, **options):
    return [Job(Candidate.create(SPACE, SPACE.genotype((i, 0, 0)), 0), **options) for i in range(n)]


def evaluator(*stages, **options):
    return Evaluator({SPACE.name: SPACE}, stages, None, **options)


def run(executor, work, todo, on_event=lambda event: None):
    events = []

    def take(event):
        events.append(event)
        on_event(event)

    with executor:
        executor.run(work, todo, take)
    ends = [event for event in events if isinstance(event, Ended)]
    assert sorted(end.candidate for end in ends) == sorted(job.candidate.id for job in todo)
    readings = {job.candidate.id: {} for job in todo}
    for event in events:
        if isinstance(event, Reading):
            readings[event.candidate] |= {o.metric: o.value for o in event.observations}
    return ends, list(readings.values())


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node with one CPU; tests add others and take them away."""
    ray.shutdown()
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_node_that_comes_is_used_and_when_it_is_lost_its_candidates_are_evaluated_elsewhere(cluster, tmp_path):
    flag, second = tmp_path / "lost", []

    def come_and_go(event):
        if isinstance(event, Ended) and not second:
            second.append(cluster.add_node(num_cpus=1))
        elif isinstance(event, Reading) and second and event.observations[0].value == node_number(second[0]):
            cluster.remove_node(second[0], allow_graceful=False)  # in the middle of the candidate's second stage
            write_text(flag, second[0].node_id)

    todo = jobs(6)
    ends, readings = run(RayExecutor(), evaluator(Where("first"), Stuck("then", flag)), todo, come_and_go)
    assert {(end.state, end.attempts) for end in ends} == {(RecordState.COMPLETE, 1)}
    first = node_number(cluster.head_node)
    assert sorted(reading["first"] == first for reading in readings) == [False] + [True] * 5
    assert {reading["then"] for reading in readings} == {first}


def dies_on_two(subject):
    if subject.genotype.genes[0] == 2:
        os._exit(7)
    return 1.0


def hangs_on_two(subject):
    if subject.genotype.genes[0] == 2:
        threading.Event().wait()
    return 1.0


def runs_out_of_memory_on_two(subject):
    if subject.genotype.genes[0] == 2:
        raise MemoryError("no room for two")
    return 1.0


@pytest.mark.parametrize(
    ("function", "timeout_s", "reason"),
    [
        (dies_on_two, 60, "its process or node was lost"),
        pytest.param(
            hangs_on_two, 0.3, "it ran longer than execution.candidate_timeout_s = 0.3", marks=pytest.mark.slow
        ),
        pytest.param(
            runs_out_of_memory_on_two,
            60,
            "it ran out of memory: MemoryError: no room for two",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_process_lost_costs_its_candidate_two_attempts_and_nobody_else_anything(cluster, function, timeout_s, reason):
    todo = jobs(4)
    executor = RayExecutor(candidate_timeout_s=timeout_s)
    ends, _ = run(executor, evaluator(FunctionStage("x", function)), todo)
    failed = {end.candidate: end for end in ends if end.state is RecordState.FAILED}
    assert failed.keys() == {todo[2].candidate.id}
    (end,) = failed.values()
    assert f"given up after 2 attempts; in the last one {reason}" in end.failure.reason
    assert end.attempts == 2
    assert {e.attempts for e in ends if e is not end} == {1}


def test_a_device_is_measured_on_the_node_that_carries_it_alone(cluster):
    executor, events = RayExecutor(), []
    work = dataclasses.replace(evaluator(Where("count"), Where("device:phone")), is_last=False)
    todo = jobs(3, constraints=(Constraint("count", max=-1.0),)) + jobs(4)[3:]
    with pytest.raises(InputError, match="no node of the Ray cluster carries 'device:phone'; start .* --num-cpus=0"):
        executor.measure(work, todo, events.append)
    shared = cluster.add_node(num_cpus=1, resources={"device:phone": 1})
    with pytest.raises(InputError, match="must run nothing else, but offers {'CPU': 1.0} to Ray"):
        executor.at_device("device:phone", here)
    cluster.remove_node(shared)
    alone = cluster.add_node(num_cpus=0, resources={"device:phone": 1})
    events.clear()
    executor.measure(work, todo, events.append)
    ends = {event.candidate: event.state for event in events if isinstance(event, Ended)}
    assert [ends[job.candidate.id] for job in todo] == [RecordState.INFEASIBLE] * 3 + [RecordState.ASKED]
    (measured,) = [e for e in events if isinstance(e, Reading) and e.observations[0].stage == "device:phone"]
    assert measured.candidate == todo[3].candidate.id
    assert measured.observations[0].value == node_number(alone)
    assert executor.at_device("device:phone", here) == alone.node_id
    assert executor.at_device("device:phone", os.getenv, "CUDA_VISIBLE_DEVICES") == os.getenv("CUDA_VISIBLE_DEVICES")


def waits_then_tells(folder):
    """Ends on every node but the first, which is lost meanwhile."""
    first = folder / "first"
    if not first.exists():
        write_text(first, here())
    while first.read_text() == here():
        time.sleep(0.05)
    return here()


@pytest.mark.slow
def test_a_devices_node_that_is_lost_is_waited_for_and_measures_again(cluster, tmp_path, caplog):
    first = cluster.add_node(num_cpus=0, resources={"device:tablet": 1})
    with ThreadPoolExecutor() as threads:
        called = threads.submit(RayExecutor().at_device, "device:tablet", waits_then_tells, tmp_path)
        until(lambda: (tmp_path / "first").exists() or called.done())
        cluster.remove_node(first, allow_graceful=False)
        until(lambda: "waiting for it" in caplog.text or called.done())
        second = cluster.add_node(num_cpus=0, resources={"device:tablet": 1})
        assert called.result() == second.node_id
    assert "No node of the Ray cluster carries 'device:tablet' any more; waiting for it: start" in caplog.text
    assert "was lost and is made again" in caplog.text
    cluster.remove_node(second)


def until(is_so):
    while not is_so():
        time.sleep(0.05)


class FakeRay:
    """Stands for the module: nodes come and go as `looks` says, and calls are lost as `answers` does."""

    exceptions = ray.exceptions

    def __init__(self, looks, answers):
        self.looks, self.answers, self.n_calls = list(looks), list(answers), 0

    def is_initialized(self):
        return True

    def nodes(self):
        there = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [{"Alive": there, "Resources": {"device:phone": 1.0}}]

    def remote(self, function):
        return self

    def options(self, **options):
        assert options["max_retries"] == 0
        return types.SimpleNamespace(remote=self.call)

    def call(self, function, *arguments):
        self.n_calls += 1
        return function

    def wait(self, references, timeout):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.answer = answer
        return (references, []) if answer is not None else ([], references)

    def get(self, reference):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


LOST = ray.exceptions.NodeDiedError("its node has died")


@pytest.fixture
def fake(monkeypatch):
    def make(looks, answers):
        module = FakeRay(looks, answers)
        for user in (ray_cluster, ray_devices, ray_places, ray_workers):
            monkeypatch.setattr(user, "ray_api", lambda: module)
            monkeypatch.setattr(user, "_POLL_S", 0.0, raising=user is not ray_cluster)
        return module

    return make


@pytest.mark.parametrize(
    ("looks", "answers", "n_calls", "n_waits"),
    [
        ([True], [7], 1, 0),
        ([True], [None, None, 7], 1, 0),  # it takes its time
        ([True, False, False, True], [None, 7], 1, 1),  # gone before it began: the call waits for the node's return
        ([True, False, False, True], [LOST, 7], 2, 1),  # gone in the middle
        ([True, True, True], [LOST, 7], 2, 0),  # its process alone
    ],
)
def test_a_call_on_a_devices_node_outlives_the_loss_of_it(fake, caplog, looks, answers, n_calls, n_waits):
    module = fake(looks, answers)
    assert RayExecutor().at_device("device:phone", here) == 7
    assert module.n_calls == n_calls
    assert caplog.text.count("carries 'device:phone' any more; waiting for it") == n_waits


def test_a_call_that_is_lost_again_and_again_is_a_fault_of_the_users(fake):
    module = fake([True], [LOST])
    with pytest.raises(InputError, match="'device:phone', or the process that measured there, was lost 4 times"):
        RayExecutor().at_device("device:phone", here)
    assert module.n_calls == 4


def test_a_devices_node_that_was_there_once_is_waited_for(fake, caplog):
    module = fake([True], [7])
    executor = RayExecutor()
    executor.at_device("device:phone", here)
    module.looks = [False, False, True]
    assert executor.at_device("device:phone", here) == 7
    assert "waiting for it" in caplog.text


def test_what_the_call_itself_raises_is_passed_on(fake):
    fake([True], [ray.exceptions.RayTaskError("measure", "", ValueError("too hot"))])
    with pytest.raises(ray.exceptions.RayTaskError):
        RayExecutor().at_device("device:phone", here)


def test_a_worker_past_its_limit_whose_end_is_there_is_not_killed(fake, monkeypatch):
    module = fake([True], [7])
    group, dropped = WorkerGroup(evaluator(), {}, 1, TimeLimit()), []
    late = types.SimpleNamespace(awaited="its end", job=jobs(1)[0], is_ready=True, since=-math.inf)
    group._workers.append(late)
    monkeypatch.setattr(group, "_drop", dropped.append)
    queue = JobQueue([], lambda event: None)
    group.stop_late(queue)
    assert dropped == []
    module.answers = [None]
    group.stop_late(queue)
    assert dropped == [late]
    assert queue.take(0).attempt == 2


def test_a_worker_that_does_not_start_is_replaced_and_no_candidate_pays_for_it(fake, monkeypatch, caplog):
    fake([True], [None])
    group, dropped = WorkerGroup(evaluator(), {}, 1, TimeLimit()), []
    group._workers += [
        types.SimpleNamespace(awaited="files", job=None, is_ready=False, since=time.monotonic() - age)
        for age in (601, 10)
    ]
    monkeypatch.setattr(group, "_drop", dropped.append)
    group.stop_late(JobQueue([], lambda event: None))
    assert dropped == group._workers[:1]
    assert "did not start within 600 s" in caplog.text


def test_a_gpu_must_be_asked_for_where_trainings_need_one():
    RayExecutor(resources_per_candidate={"gpu": 0.25}).check_device("cuda:1")
    RayExecutor().check_device("cpu")
    with pytest.raises(ValueError, match=r"resources_per_candidate must hold a share of a gpu.* got {'CPU': 1.0}"):
        RayExecutor().check_device("cuda")


def weights_on(root, driver, candidate):
    """Return another path in the driver than on a node, as if they shared no disk."""
    return root / ("driver" if os.getpid() == driver else "node") / candidate


class Writes(Where):
    """Writes weights where they are to be, and reads the file that it needs."""

    def __init__(self, name, weights, needed):
        super().__init__(name)
        self.weights = weights
        self.needed = needed

    def run(self, subject):
        self.weights(subject.candidate.id).write_bytes(self.needed.read_bytes() + subject.candidate.id.encode())
        return super().run(subject)


def test_files_go_to_the_node_and_weights_come_back(cluster, tmp_path):
    (tmp_path / "driver").mkdir()
    needed = tmp_path / "needed"
    needed.write_bytes(b"weights of ")
    weights = functools.partial(weights_on, tmp_path, os.getpid())
    todo = jobs(2)
    run(RayExecutor(), evaluator(Writes("x", weights, needed), files=(needed,), weights=weights), todo)
    for job in todo:
        assert (tmp_path / "driver" / job.candidate.id).read_bytes() == b"weights of " + job.candidate.id.encode()


def test_a_node_is_given_the_files_that_it_has_not(cluster, tmp_path):
    here, gone = tmp_path / "here", tmp_path / "far" / "gone"
    here.write_text("1")
    worker = NodeWorker(evaluator(files=(here, gone)), 1)
    assert worker.missing_files() == [gone]
    worker.receive({gone: ray.put(np.frombuffer(b"some content", dtype=np.uint8))})
    assert worker.missing_files() == []
    assert gone.read_bytes() == b"some content"


@pytest.mark.slow
def test_a_whole_search_is_the_same_as_in_one_process(cluster, tiny_config, tiny_run, tmp_path):
    cluster.add_node(num_cpus=0, resources={"device:phone": 1})
    run = nas.run_search(tiny_config, tmp_path / "runs" / "ray", overrides=["execution={kind: ray}"])
    assert to_json(run, all_records=True) == to_json(nas.load_run(tiny_run), all_records=True)
    for path in (tiny_run / "weights").iterdir():
        assert (run.path / "weights" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_threads": 0}, "n_threads must be at least 1, got 0"),
        ({"candidate_timeout_s": -1.0}, "candidate_timeout_s must be positive, got -1.0"),
        ({"resources_per_candidate": {"cpu": 0}}, "resources_per_candidate must be amounts .* got {'cpu': 0}"),
        ({"resources_per_candidate": {"gpu": -0.5}}, "resources_per_candidate must be amounts"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RayExecutor(**options)
