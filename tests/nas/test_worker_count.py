"""How many workers: pure decisions, and the climb to the best number with a clock of our own."""

import pytest
import torch

from nas.execution import ProcessPoolExecutor
from nas.execution.process_pool import visible_gpus
from nas.execution.worker_count import WorkerCount, n_cpu_workers, n_that_fit, next_n_workers

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


def climb(throughput, limit=64, n_candidates=400):
    now = [0.0]
    count = WorkerCount(lambda n: limit, lambda: now[0])
    for _ in range(n_candidates):
        now[0] += 1 / throughput(count.n)
        count.note_end()
    return count


def test_the_climb_ends_where_the_throughput_saturates():
    assert climb(lambda n: min(n, 8)).n == 8
    assert climb(lambda n: min(n, 5)).n == 8  # 5 a second with 8 workers, 4 with 4
    assert climb(lambda n: 1.0).n == 1
    assert climb(lambda n: n, limit=12).n == 12


def test_want_of_memory_takes_one_away_for_good():
    count = climb(lambda n: n, limit=12)
    count.note_memory_fault()
    assert count.n == 11


@pytest.mark.gpu
def test_gpus_are_shared_out_and_the_number_is_found():
    assert len(visible_gpus()) == torch.cuda.device_count()
    assert ProcessPoolExecutor("auto").n_gpus("cuda") == torch.cuda.device_count()
