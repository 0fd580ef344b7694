"""The search loop: what is stored when, what a resume does, and the order of measurements and trainings."""

import dataclasses

import numpy as np
import pytest

from nas.controllers import Nsga2, RandomSearch, SearchProblem
from nas.errors import EvaluationError
from nas.evaluation import Evaluator, FunctionStage, Need, Stage
from nas.execution import SerialExecutor
from nas.objectives import Constraint, Direction, Objective
from nas.records import RecordState
from nas.search import Search, SearchListener, SearchParts
from nas.store import RunFolder
from search_spaces.integers import Integers

SPACE = Integers(n_genes=5, n_values=4)
OBJECTIVES = (Objective("cost", Direction.MINIMIZE), Objective("score", Direction.MAXIMIZE))


class Killed(BaseException):
    """Stands for a `kill -9`: nothing may be done after it."""


class Cost(Stage):
    """Stands for a measurement on a device."""

    name = "device:fake"
    needs = frozenset({Need.EXCLUSIVE_DEVICE})
    provides = frozenset({"cost"})

    def run(self, subject):
        LOG.append(("measure", subject.candidate.id))
        return subject.observe(self.name, {"cost": sum(subject.genotype.genes)})


def score(subject):
    LOG.append(("train", subject.candidate.id))
    genes = np.array(subject.genotype.genes)
    if genes[0] == 3 and genes[1] == 0:
        raise ValueError("this one cannot be trained")
    return float(np.sin(genes * np.arange(1, 6)).sum())


LOG: list = []


class KillAfter(SearchListener):
    """Ends the process after so many calls of the store."""

    def __init__(self, store, n_calls):
        self.left = n_calls
        for name in ("add_batch", "add_observations", "add_verdict", "set_fact"):
            setattr(store, name, self.counted(getattr(store, name)))

    def counted(self, method):
        def call(*arguments, **options):
            if self.left == 0:
                raise Killed
            self.left -= 1
            return method(*arguments, **options)

        return call


def parts(controller=None, **changes):
    spaces = {SPACE.name: SPACE}
    made = SearchParts(
        problem=SearchProblem(SPACE, OBJECTIVES, seed=3),
        constraints=(Constraint("cost", max=11.0),),
        controller=controller or Nsga2(population_size=6, n_generations=4),
        measuring=Evaluator(spaces, (Cost(),), None, is_last=False),
        working=Evaluator(spaces, (FunctionStage("score", score),), None, frozenset({"cost", "score"})),
        executor=SerialExecutor(),
        given_reference_point={"score": -5.0},
    )
    return dataclasses.replace(made, **changes)


def search(path, controller=None, kill_after=None, listeners=(), **changes):
    LOG.clear()
    folder = RunFolder.write(path)
    with folder:
        if kill_after is not None:
            KillAfter(folder.store, kill_after)
        run = Search(parts(controller, **changes), folder, listeners)
        run.run()
        return folder.store.records(), run.hypervolume


def test_every_candidate_asked_for_leaves_one_record(tmp_path):
    records, _ = search(tmp_path / "run")
    assert len(records) == len({record.id for record in records}) == 24
    states = {record.state for record in records}
    assert states == {RecordState.COMPLETE, RecordState.INFEASIBLE, RecordState.FAILED}
    for record in records:
        genes = record.candidate.genotype.genes
        expected = RecordState.COMPLETE
        if sum(genes) > 11:
            expected = RecordState.INFEASIBLE
        elif genes[:2] == (3, 0):
            expected = RecordState.FAILED
        assert record.state is expected
        assert ("score" in record.metrics) == (expected is RecordState.COMPLETE)


def test_a_batch_is_measured_before_its_first_training(tmp_path):
    records, _ = search(tmp_path / "run")
    kinds = [kind for kind, _ in LOG]
    for batch in range(4):
        ids = {record.id for record in records if record.batch == batch}
        own = [kind for kind, candidate in LOG if candidate in ids]
        assert own == sorted(own)  # "measure" before "train"
    assert kinds.count("train") < kinds.count("measure")


def test_no_training_outside_the_bounds(tmp_path):
    records, _ = search(tmp_path / "run")
    trained = {candidate for kind, candidate in LOG if kind == "train"}
    infeasible = {record.id for record in records if record.state is RecordState.INFEASIBLE}
    assert infeasible
    assert trained.isdisjoint(infeasible)


def plain(records):
    return [(r.candidate, r.state, r.metrics, r.number, r.batch, r.attempts, r.violations) for r in records]


def test_killed_anywhere_and_resumed_it_ends_as_if_never_stopped(tmp_path):
    expected, hypervolume = search(tmp_path / "whole")
    for kill_after in range(0, 64, 3):
        path = tmp_path / f"killed{kill_after}"
        with pytest.raises(Killed):
            search(path, kill_after=kill_after)
        with pytest.raises(Killed):
            search(path, kill_after=11)
        records, resumed = search(path)
        assert (plain(records), resumed) == (plain(expected), hypervolume)


def test_a_resume_takes_no_stored_reading_again(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        search(path, kill_after=30)
    before = list(LOG)
    search(path)
    in_flight = 1
    repeated = set(before) & set(LOG)
    assert len(repeated) <= in_flight
    assert len(before) > 10


def test_a_finished_run_is_extended(tmp_path):
    expected, _ = search(tmp_path / "whole", Nsga2(6, 6))
    search(tmp_path / "run", Nsga2(6, 3))
    records, _ = search(tmp_path / "run", Nsga2(6, 6))
    assert plain(records) == plain(expected)


def test_a_space_that_is_used_up_ends_the_run_normally(tmp_path):
    said = []

    class Listener(SearchListener):
        def on_message(self, text):
            said.append(text)

    tiny = Integers(n_genes=2, n_values=3)
    spaces = {tiny.name: tiny}
    records, _ = search(
        tmp_path / "run",
        RandomSearch(n_candidates=100, batch_size=4),
        listeners=[Listener()],
        problem=SearchProblem(tiny, OBJECTIVES[:1], seed=0),
        measuring=Evaluator(spaces, (Cost(),), None, frozenset({"cost"})),
        working=Evaluator(spaces, (), None),
        constraints=(),
    )
    assert len(records) == 9
    assert any("used up" in text for text in said)


def test_a_first_batch_of_failures_alone_stops_the_run_and_says_why(tmp_path):
    def fail(subject):
        raise OSError("the data is not there")

    spaces = {SPACE.name: SPACE}
    with pytest.raises(EvaluationError, match=r"all 6 candidates of the first batch failed.*the data is not there"):
        search(
            tmp_path / "run",
            constraints=(),
            working=Evaluator(spaces, (FunctionStage("score", fail),), None, frozenset({"score"})),
        )


def test_the_reference_point_is_fixed_from_a_stored_sample_before_anything_is_trained(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        search(path, kill_after=4, constraints=())
    with RunFolder.read(path) as folder:
        point = folder.store.fact("reference_point")
        costs = [row["metrics"]["cost"] for row in folder.store.fact("reference_sample")]
    assert point["score"] == -5.0
    assert point["cost"] == pytest.approx(max(costs) + 0.1 * (max(costs) - min(costs)))
    search(path, constraints=())
    with RunFolder.read(path) as folder:
        assert folder.store.fact("reference_point") == point


def test_the_reference_point_comes_from_a_bound_where_there_is_one(tmp_path):
    search(tmp_path / "run")
    with RunFolder.read(tmp_path / "run") as folder:
        assert folder.store.fact("reference_point") == {"cost": 11.0, "score": -5.0}
        assert folder.store.fact("reference_sample") is None
