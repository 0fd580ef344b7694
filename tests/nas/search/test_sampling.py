"""The sample that fixes the reference point: what is measured, stored and told."""

import copy

import pytest

from nas.controllers import SearchProblem
from nas.evaluation import Evaluator, Stage
from nas.evaluation.stages import FunctionStage
from nas.execution import SerialExecutor
from nas.search.listener import SearchListener
from nas.search.sampling import sample_costs
from nas.values.objectives import Direction, Objective
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=5, n_values=4)
OBJECTIVES = (Objective("slow", Direction.MINIMIZE),)
N = 8


class Killed(BaseException):
    """Stands for a `kill -9`."""


class Device(Stage):
    """Gives the sum of the genes, and keeps whom it measured."""

    needs = frozenset()

    def __init__(self, metric, fails=lambda genes: False):
        self.name = f"device:{metric}"
        self.provides = frozenset({metric})
        self.measured = []
        self._fails = fails

    def run(self, subject):
        genes = subject.genotype.genes
        self.measured.append(genes)
        if self._fails(genes):
            raise ValueError("too much for it")
        return subject.observe(self.name, {next(iter(self.provides)): float(sum(genes))})


class Disk:
    """Keeps what is stored, and ends the process instead of a given call."""

    def __init__(self, dies_at=None):
        self.rows, self.n_calls, self.dies_at = (), 0, dies_at

    def store(self, rows):
        if self.n_calls == self.dies_at:
            raise Killed
        self.n_calls += 1
        self.rows = copy.deepcopy(rows)


class Told(SearchListener):
    """Keeps messages and progress."""

    def __init__(self, told):
        self.told = told

    def on_message(self, text):
        self.told.append(text)

    def on_progress(self, *progress):
        self.told.append(progress)


def sampled(stages, disk=None, *, metrics=("slow",), keeps=lambda genotype: True, told=None):
    disk = disk or Disk()
    told = [] if told is None else told
    return sample_costs(
        SearchProblem(SPACE, OBJECTIVES, seed=3, keeps_cheap_bounds=keeps),
        (Evaluator({SPACE.name: SPACE}, tuple(stages), None, is_last=False),),
        SerialExecutor(isolated=False),
        metrics=frozenset(metrics),
        stored=disk.rows,
        store=disk.store,
        listener=Told(told),
    )


def test_different_genotypes_are_measured_by_what_gives_the_metrics_and_nothing_else():
    slow, other = Device("slow"), Device("other")
    rows = sampled([slow, other])
    assert len(set(slow.measured)) == len(slow.measured) == N
    assert other.measured == []
    assert [row["metrics"] for row in rows] == [{"slow": float(sum(genes))} for genes in slow.measured]


@pytest.mark.parametrize("n_stored", range(2 * N))
def test_a_kill_loses_the_reading_in_flight_and_no_other(n_stored):
    metrics = ("slow", "other")
    whole = sampled([Device("slow"), Device("other")], metrics=metrics)
    disk, stages = Disk(dies_at=n_stored), [Device("slow"), Device("other")]
    with pytest.raises(Killed):
        sampled(stages, disk, metrics=metrics)
    disk.dies_at = None
    assert sampled(stages, disk, metrics=metrics) == whole
    assert sum(len(stage.measured) for stage in stages) == 2 * N + 1
    assert sampled(stages, disk, metrics=metrics) == whole
    assert sum(len(stage.measured) for stage in stages) == 2 * N + 1


def test_a_network_that_failed_is_told_of_and_not_tried_again():
    disk, told = Disk(), []
    slow = Device("slow", fails=lambda genes: genes[0] == 0)
    rows = sampled([slow], disk, told=told)
    failed = [row for row in rows if row["failure"]]
    assert failed
    assert all(row["genes"][0] == 0 and row["metrics"] == {} for row in failed)
    assert told.count("A sampled network failed in device:slow: ValueError: too much for it") == len(failed)
    sampled([slow], disk)
    assert len(slow.measured) == N


def test_networks_beyond_cheap_bounds_are_measured_only_for_want_of_others():
    slow = Device("slow")
    sampled([slow], keeps=lambda genotype: genotype.genes[0] == 3)
    assert {genes[0] for genes in slow.measured} == {3}
    none = Device("slow")
    sampled([none], keeps=lambda genotype: False)
    assert len(none.measured) == N


def test_progress_is_told_before_each_network_and_at_the_end():
    told = []
    sampled([Device("slow")], told=told)
    assert told[0] == "Measuring the costs of 8 sampled networks to fix the reference point."
    assert told[1:] == [("reference sample", n_done, N) for n_done in range(N + 1)]


def test_a_function_finds_what_the_stages_before_it_give():
    slow, later = Device("slow"), Device("later")
    function = FunctionStage("half", lambda subject: subject.metrics["slow"] / 2)
    stages, disk = [slow, function, later], Disk()
    rows = sampled(stages, disk, metrics=("half",))
    assert [row["metrics"]["half"] for row in rows] == [sum(genes) / 2 for genes in slow.measured]
    assert later.measured == []
    assert sampled(stages, disk, metrics=("half",)) == rows
    assert len(slow.measured) == N
