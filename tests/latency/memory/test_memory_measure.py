import os
import subprocess
import sys

import torch

from latency.memory.measure import peak_allocated_cpu, peak_of

MIB = 2**20


def test_peak_of_a_sequence():
    assert peak_of([]) == 0
    assert peak_of([(1, 10), (2, 20), (1, -10), (3, 15), (2, -20), (3, -15)]) == 35


def test_memory_freed_that_was_there_before_does_not_count():
    assert peak_of([(9, -100), (1, 10), (2, 20)]) == 30


def test_an_address_is_used_again():
    assert peak_of([(1, 10), (1, -10), (1, 30), (1, -30), (1, 20)]) == 30


def test_allocations_of_tensors_are_seen_exactly():
    before = [torch.zeros(MIB)]

    def call():
        first = torch.zeros(MIB)  # 4 MiB
        second = torch.ones(2 * MIB)  # 12 MiB alive
        before.clear()
        del first
        third = torch.ones(MIB // 2)  # 10 MiB alive
        return second, third

    assert peak_allocated_cpu(call) == 12 * MIB
    assert peak_allocated_cpu(call) == 12 * MIB


def test_the_result_counts_and_in_place_work_does_not():
    image = torch.zeros(MIB)
    assert peak_allocated_cpu(lambda: (image + image).relu_().neg_()) == 4 * MIB
    assert peak_allocated_cpu(lambda: image.view(2, -1)) == 0


def test_nothing_is_printed():
    program = (
        "import torch; from latency.memory.measure import peak_allocated_cpu;peak_allocated_cpu(lambda: torch.zeros(9))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
