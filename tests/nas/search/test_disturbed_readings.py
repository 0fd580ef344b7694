"""Readings on a busy machine: repeated before any verdict, again with the front, and never the reason of a bound."""

import dataclasses
from collections import Counter
from typing import ClassVar

import pytest
from torch import nn

from latency.devices.fake_device import FakeDevice
from latency.timing.stats import LatencyStats
from nas.controllers import RandomSearch, SearchProblem
from nas.evaluation import DeviceStage, Evaluator, FunctionStage, ModelSignature
from nas.execution import SerialExecutor
from nas.search.candidate_evaluation import N_REPEATS
from nas.search.loop import Search
from nas.search.parts import Scheduling, SearchParts
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.objectives import Constraint, Direction, Objective
from nas.values.records import RecordState
from search_spaces.base import ModelSpace
from search_spaces.spaces.integers import Integers

OBJECTIVES = (Objective("ms", Direction.MINIMIZE), Objective("score", Direction.MAXIMIZE))
UNLUCKY = (1, 2)  # 2 ms, on the front: of those as quick the best


@dataclasses.dataclass(frozen=True)
class Numbered(Integers, ModelSpace):
    """Nine networks that know their genes."""

    name: ClassVar[str] = "numbered"
    n_genes: int = 2
    n_values: int = 3

    def build(self, genotype, **sizes):
        model = nn.Identity()
        model.genes = genotype.genes
        return model


SPACE = Numbered()


class Busy(FakeDevice):
    """Reads 1 ms and one more by the first gene, but as the script says while that lasts: the value, its true part."""

    script: ClassVar[dict] = {}
    calls: ClassVar[list] = []

    def measure_latency(self, model, input_shape):
        own, n_before = self.script.get(model.genes, []), Counter(self.calls)[model.genes]
        self.calls.append(model.genes)
        true = 1.0 + model.genes[0]
        value, undisturbed = own[n_before] if n_before < len(own) else (true, None)
        conditions = {"is_disturbed": undisturbed is not None, "undisturbed_ms": undisturbed or value}
        return LatencyStats(value, value, value, 1, conditions)


@pytest.fixture(autouse=True)
def script():
    Busy.calls.clear()
    Busy.script.clear()
    return Busy.script


class Killed(BaseException):
    """Stands for a `kill -9`."""


def kill_after(store, n_calls):
    """End the process when so many readings are stored."""
    add, left = store.add_observations, [n_calls]

    def counted(observations):
        add(observations)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    store.add_observations = counted


def score(subject):
    return 10.0 * subject.genotype.genes[0] + subject.genotype.genes[1]


def search(path, kill=None, **changes):
    spaces = {SPACE.name: SPACE}
    device = DeviceStage("phone", Busy(), {"latency_ms": "ms"})
    parts = SearchParts(
        problem=SearchProblem(SPACE, OBJECTIVES, seed=3),
        constraints=(Constraint("ms", max=5.0),),
        controller=RandomSearch(n_candidates=9, batch_size=9),
        measuring=Evaluator(spaces, (device,), ModelSignature(3, (8, 8), 2), is_last=False),
        working=Evaluator(spaces, (FunctionStage("score", score),), None, frozenset({"ms", "score"})),
        executor=SerialExecutor(isolated=False),
        given_reference_point={"score": -1.0},
    )
    parts = dataclasses.replace(parts, **changes)
    with RunFolder.write(path) as folder:
        folder.store.set_fact("objectives", [dataclasses.asdict(objective) for objective in OBJECTIVES])
        folder.store.set_fact("constraints", [dataclasses.asdict(constraint) for constraint in parts.constraints])
        if kill is not None:
            kill_after(folder.store, kill)
        Search(parts, folder).run()
        return {r.candidate.genotype.genes: r for r in folder.store.records()}, folder.store.observations()


def readings(observations, record):
    return [o.value for o in observations if (o.candidate, o.stage) == (record.id, "device:phone")]


@pytest.mark.parametrize("scheduling", Scheduling)
def test_bad_luck_is_read_again_before_any_verdict(tmp_path, script, scheduling):
    script[UNLUCKY] = [(12.3, 6.0), (2.6, None)]
    script[0, 0] = [(7.0, 1.0), (8.0, 1.0), (1.1, None)]
    records, observations = search(tmp_path / "run", scheduling=scheduling)
    assert {record.state for record in records.values()} == {RecordState.COMPLETE}
    assert records[0, 0].metrics["ms"] == 1.1
    assert readings(observations, records[UNLUCKY]) == [12.3, 2.6]  # the first one is kept
    assert readings(observations, records[0, 0]) == [7.0, 8.0, 1.1]
    assert not records[UNLUCKY].undisturbed


def test_repeats_come_after_the_batch_and_take_turns(tmp_path, script):
    script[UNLUCKY] = script[0, 0] = [(12.3, 2.6)] * 2
    search(tmp_path / "run")
    first, repeats = Busy.calls[:9], Busy.calls[9:13]
    assert len(set(first)) == 9
    assert set(repeats[:2]) == {UNLUCKY, (0, 0)}
    assert repeats[:2] == repeats[2:]


@pytest.mark.parametrize(
    ("undisturbed", "state"), [(2.6, RecordState.COMPLETE), (5.0, RecordState.COMPLETE), (6.0, RecordState.INFEASIBLE)]
)
@pytest.mark.parametrize("trains", [True, False])
def test_what_stays_disturbed_is_outside_a_bound_by_its_undisturbed_part_alone(
    tmp_path, script, undisturbed, state, trains
):
    script[2, 0] = [(12.3, undisturbed)] * 100
    measuring_alone = {}
    if not trains:
        spaces = {SPACE.name: SPACE}
        stages = (DeviceStage("phone", Busy(), {"latency_ms": "ms"}), FunctionStage("score", score))
        measuring = Evaluator(spaces, stages, ModelSignature(3, (8, 8), 2), frozenset({"ms", "score"}))
        measuring_alone = {"measuring": measuring, "working": Evaluator(spaces, (), None)}
    records, observations = search(tmp_path / "run", **measuring_alone)
    record = records[2, 0]
    assert record.state is state
    assert readings(observations, record) == [12.3] * (1 + N_REPEATS)
    assert record.undisturbed == {"ms": undisturbed}
    assert [violation.value for violation in record.violations] == [6.0] * (state is RecordState.INFEASIBLE)


def test_who_misses_the_front_by_bad_luck_is_measured_with_it(tmp_path, script):
    script[UNLUCKY] = [(12.3, 2.2)] * (1 + N_REPEATS)  # and then its 2 ms
    script[2, 0] = [(12.3, 2.9)] * 100  # of 3 ms and 20 points: dominated by (2, 2), whatever disturbed it; 2.9 is not
    script[0, 0] = [(12.3, 1.0)] * (1 + N_REPEATS)  # dominated by (0, 2), which is as quick: not measured again
    records, observations = search(tmp_path / "run")
    front = {record.candidate.genotype.genes for record in Run.load(tmp_path / "run").front}
    assert front == {(0, 2), (1, 2), (2, 2)}
    assert records[UNLUCKY].metrics["ms"] == 2.0
    confirmed = {o.candidate for o in observations if o.stage == "confirmation"}
    # (1, 1) stood on the front while (1, 2) did not.
    assert confirmed == {records[genes].id for genes in ((0, 2), (1, 1), (1, 2), (2, 2), (2, 0))}
    assert records[2, 0].undisturbed == {"ms": 2.9}


def test_of_the_last_rounds_those_that_nothing_disturbed_count(tmp_path, script):
    script[UNLUCKY] = [(2.0, None), (9.0, 2.0), (9.0, 2.0), (1.9, None)]
    records, _ = search(tmp_path / "run")
    record = records[UNLUCKY]
    assert (record.metrics["ms"], record.undisturbed) == (1.9, {})
    assert (record.conditions["ms"]["rounds"], record.conditions["ms"]["n_disturbed_rounds"]) == ([1.9], 2)


def test_on_the_front_a_disturbed_reading_breaks_no_bound(tmp_path, script):
    script[2, 2] = [(12.3, 3.5)] * 100  # of all the best score
    search(tmp_path / "run")
    run = Run.load(tmp_path / "run")
    best = {record.candidate.genotype.genes: record for record in run.front}[2, 2]
    assert (best.metrics["ms"], best.undisturbed) == (12.3, {"ms": 3.5})


def test_killed_anywhere_and_resumed_it_ends_the_same(tmp_path, script):
    def plain(records):
        return {genes: (r.state, r.metrics, r.undisturbed, r.attempts) for genes, r in records.items()}

    script[UNLUCKY] = [(12.3, 6.0), (2.6, None)]
    script[2, 0] = [(12.3, 6.0)] * 100
    script[2, 2] = [(12.3, 6.0), (11.3, 6.0), (3.1, None)]
    whole, observations = search(tmp_path / "whole")
    n_writes = sum(o.stage == "device:phone" for o in observations)
    assert n_writes == 9 + 1 + N_REPEATS + 2
    for n_calls in range(1, n_writes + 1, 2):
        Busy.calls.clear()
        with pytest.raises(Killed):
            search(tmp_path / f"run{n_calls}", kill=n_calls)
        resumed, again = search(tmp_path / f"run{n_calls}")
        assert plain(resumed) == plain(whole)
        assert Counter(o.value for o in again) == Counter(o.value for o in observations)
