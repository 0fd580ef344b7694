"""How many workers: pure decisions, and the climb to the best number with a clock of our own."""

import pytest
import torch

from nas.evaluation import Ended, Evaluator, FunctionStage, Job, Reading
from nas.execution import ProcessPoolExecutor
from nas.execution.process_pool import free_gpu_bytes, visible_gpus
from nas.execution.worker_count import WorkerCount, n_cpu_workers, n_that_fit, next_n_workers
from nas.values.records import Candidate
from search_spaces.spaces.integers import Integers

GIB = 2**30


@pytest.mark.parametrize(("n_threads", "n_cores", "expected"), [(1, 8, 8), (2, 8, 4), (3, 8, 2), (16, 8, 1)])
def test_on_cpus_one_worker_for_each_group_of_cores(n_threads, n_cores, expected):
    assert n_cpu_workers(n_threads, n_cores) == expected


@pytest.mark.parametrize(
    ("n_now", "free", "each", "expected"),
    [
        (1, 20 * GIB, 2 * GIB, 10),
        (4, 2.1 * GIB, 2 * GIB, 4),
        (4, 2.3 * GIB, 2 * GIB, 5),
        (1, 0, 9 * GIB, 1),
        (2, 1, 0, 2),
    ],
)
def test_on_gpus_a_tenth_of_what_is_free_stays_free(n_now, free, each, expected):
    assert n_that_fit(n_now, free, each) == expected


@pytest.mark.parametrize(
    ("rates", "limit", "expected"),
    [
        ({}, 8, 1),
        ({1: 1.0}, 8, 2),
        ({1: 1.0}, 1, 1),
        ({1: 1.0, 2: 1.9}, 8, 4),
        ({1: 1.0, 2: 1.9}, 3, 3),
        ({1: 1.0, 2: 1.05}, 8, 1),  # less than a tenth more is not worth the memory
        ({1: 1.0, 2: 1.9, 4: 1.8}, 8, 2),
        ({1: 1.0, 2: 1.9, 4: 1.8}, 1, 1),
        ({4: 1.8}, 2, 2),
    ],
)
def test_the_number_doubles_while_it_pays(rates, limit, expected):
    assert next_n_workers(rates, limit) == expected


@pytest.mark.parametrize(("device", "expected"), [("cuda", 1), ("cuda:0", 5), ("cuda:1", 1), ("cuda:2", 3)])
def test_free_memory_is_that_of_the_gpus_that_train(monkeypatch, device, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((5, 1, 3)[index], 9))
    assert free_gpu_bytes(device) == expected


def climb(throughput, limit=64, n_candidates=400):
    now = [0.0]
    count = WorkerCount(lambda n: limit, lambda: now[0])
    for _ in range(n_candidates):
        count.note_working(all_work=True)
        now[0] += 1 / throughput(count.n)
        count.note_end()
    return count


def climb_in_generations(throughput, size, n_generations=60):
    """Work off generations; what is left of one is worked off by fewer workers than there are, for a long time."""
    now = [0.0]
    count = WorkerCount(lambda n: size, lambda: now[0])
    for _ in range(n_generations):
        left = size
        while left:
            count.note_working(all_work=left >= count.n)
            now[0] += 1 / throughput(count.n) if left >= count.n else 100.0
            count.note_end()
            left -= 1
        count.note_working(all_work=False)
        now[0] += 1000.0  # measurements
    return count


def test_the_climb_ends_where_the_throughput_saturates():
    assert climb(lambda n: min(n, 8)).n == 8
    assert climb(lambda n: min(n, 5)).n == 8  # 5 a second with 8 workers, 4 with 4
    assert climb(lambda n: 1.0).n == 1
    assert climb(lambda n: n, limit=12).n == 12


def test_generations_smaller_than_a_window_are_measured_together():
    assert climb_in_generations(lambda n: min(n, 4), size=6).n == 4  # windows of 4, 8 and 16 candidates
    assert climb_in_generations(lambda n: n if n < 4 else 0.5, size=6).n == 2


def test_time_in_which_not_all_work_tells_nothing():
    now = [0.0]
    count = WorkerCount(lambda n: 64, lambda: now[0])
    for seconds, all_work in ((5.0, False), (1.0, True), (7.0, False), (1.0, True)):
        count.note_working(all_work=all_work)
        now[0] += seconds
        count.note_end()
    assert count._rates == {1: 1.0}


def test_want_of_memory_takes_one_away_for_good():
    count = climb(lambda n: n, limit=12)
    count.note_memory_fault()
    assert count.n == 11


def adds_on_the_gpu(subject):
    return float(torch.ones(2**20, device="cuda").sum()) * subject.genotype.genes[0]


def asks_for_too_much(subject):
    return float(torch.ones(2**48, device="cuda").sum())


def run_on_gpus(function, n):
    space = Integers(n_genes=1, n_values=64)
    stages = (FunctionStage("x", function),)
    evaluator = Evaluator({space.name: space}, stages, None, frozenset({"x"}), device="cuda")
    events = []
    with ProcessPoolExecutor("auto") as executor:
        executor.run(
            evaluator, [Job(Candidate.create(space, space.genotype((i,)), 0)) for i in range(n)], events.append
        )
    return events


@pytest.mark.gpu
def test_gpus_are_shared_out_and_the_number_is_found():
    assert len(visible_gpus()) == torch.cuda.device_count()
    assert ProcessPoolExecutor("auto").n_gpus("cuda") == torch.cuda.device_count()
    values = [event.observations[0].value for event in run_on_gpus(adds_on_the_gpu, 12) if isinstance(event, Reading)]
    assert sorted(values) == [i * 2.0**20 for i in range(12)]


@pytest.mark.gpu
def test_want_of_gpu_memory_costs_two_attempts():
    (end,) = [event for event in run_on_gpus(asks_for_too_much, 1) if isinstance(event, Ended)]
    assert end.attempts == 2
    assert "it ran out of memory: OutOfMemoryError: CUDA out of memory" in end.failure.reason
