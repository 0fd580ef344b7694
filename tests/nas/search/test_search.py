"""The search loop: what is stored when, what a resume does, and the order of measurements and trainings."""

import dataclasses
import functools

import numpy as np
import pytest

from nas.controllers import Nsga2, RandomSearch, SearchProblem
from nas.errors import EvaluationError
from nas.evaluation import Ended, Evaluator, FunctionStage, Need, Stage
from nas.evaluation.base import PrunedError
from nas.evaluation.stopping_rules import DropRule
from nas.execution import SerialExecutor
from nas.execution.base import Executor, JobQueue
from nas.search.listener import SearchListener
from nas.search.loop import Search
from nas.search.parts import Scheduling, SearchParts
from nas.store.run_folder import RunFolder
from nas.values.budgets import Budget
from nas.values.objectives import Constraint, Direction, Objective
from nas.values.records import Pruning, RecordState
from search_spaces.spaces.integers import Integers

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
        for name in ("add_batch", "add_observations", "add_verdict", "set_facts"):
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
        executor=SerialExecutor(isolated=False),  # stages keep a log in this process
        given_reference_point={"score": -5.0},
    )
    return dataclasses.replace(made, **changes)


def search(path, controller=None, kill_after=None, listeners=(), **changes):
    LOG.clear()
    folder = RunFolder.write(path)
    with folder:
        if kill_after is not None:
            KillAfter(folder.store, kill_after)
        view = Search(parts(controller, **changes), folder, listeners).run()
        return folder.store.records(), view.hypervolume


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
        search(path, kill_after=11, constraints=())  # three facts and eight readings
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


class Halves(Stage):
    """Stands for a training in two stages that may end after the first."""

    name = "training"
    needs = frozenset({Need.DATA})
    provides = frozenset({"score"})

    def run(self, subject):
        value = score(subject)
        half = subject.observe("training@1", {"score@1": value / 2})
        limit = subject.thresholds.get("score@1")
        THRESHOLDS[subject.candidate.id] = limit
        if limit is not None and value / 2 < limit:
            raise PrunedError(Pruning(self.name, "score@1", value / 2), half)
        return [*half, *subject.observe(self.name, {"score": value})]


THRESHOLDS: dict = {}
RULE = DropRule(quantile=0.5, n_peers=3)


def halving():
    working = Evaluator({SPACE.name: SPACE}, (Halves(),), None, frozenset({"cost", "score"}))
    rule = functools.partial(RULE.thresholds, cost_metrics=("cost",), interim_metrics=("score@1",))
    return {"working": working, "thresholds": rule}


def test_thresholds_come_from_finished_batches_and_what_is_below_them_is_pruned(tmp_path):
    records, _ = search(tmp_path / "run", **halving())
    pruned = [record for record in records if record.state is RecordState.PRUNED]
    assert len(pruned) > 2
    assert {THRESHOLDS[record.id] for record in records if record.batch == 0 and record.id in THRESHOLDS} == {None}
    for record in records:
        if record.id not in THRESHOLDS:
            continue
        earlier = [other for other in records if other.batch < record.batch]
        expected = RULE.thresholds(record.metrics, earlier, ("cost",), ("score@1",)).get("score@1")
        assert THRESHOLDS[record.id] == expected
        is_behind = expected is not None and record.metrics.get("score@1", np.inf) < expected
        assert (record.state is RecordState.PRUNED) == is_behind
    assert pruned[0].pruning == Pruning("training", "score@1", pruned[0].metrics["score@1"])
    assert "score" not in pruned[0].metrics


@pytest.mark.parametrize("n_calls", range(3, 60, 7))
def test_a_killed_search_prunes_the_same_when_it_goes_on(tmp_path, n_calls):
    expected, hypervolume = search(tmp_path / "whole", **halving())
    with pytest.raises(Killed):
        search(tmp_path / "run", kill_after=n_calls, **halving())
    found, found_hypervolume = search(tmp_path / "run", **halving())
    assert found_hypervolume == hypervolume
    assert [(r.id, r.state, r.metrics) for r in found] == [(r.id, r.state, r.metrics) for r in expected]


def steady(path, controller=None, **options):
    return search(path, controller, scheduling=Scheduling.STEADY_STATE, **options)


class Overtaking(SerialExecutor):
    """Works on three candidates at a time and ends them in an order that depends on who they are."""

    measures_apart = True
    measure = Executor.measure

    def run(self, evaluator, jobs, on_event):
        queue, held = JobQueue(jobs, on_event), []
        while True:
            while len(held) < 3 and (job := queue.take(len(held))) is not None:
                held.append(job)
            if not held:
                return
            held.sort(key=lambda job: job.candidate.id)
            evaluator.run(held.pop(0), on_event)


class Tells(Nsga2):
    """Writes down what it is asked and told."""

    def ask(self, n):
        candidates = super().ask(n)
        self.log.append(("ask", [candidate.id for candidate in candidates]))
        return candidates

    def tell(self, records):
        super().tell(records)
        self.log.append(("tell", [record.id for record in records]))


def test_steadily_each_ask_knows_all_who_ended_before(tmp_path):
    controller = Tells(6, 4)
    controller.log = []
    records, _ = steady(tmp_path / "run", controller, executor=Overtaking())
    assert len(records) == 24
    told, asked = [], []
    for kind, (candidate,) in controller.log:
        (asked if kind == "ask" else told).append(candidate)
        assert len(asked) - len(told) <= 3
    assert sorted(told) == sorted(asked)
    assert told != asked


def test_steadily_one_at_a_time_killed_anywhere_and_resumed_it_ends_as_if_never_stopped(tmp_path):
    expected, hypervolume = steady(tmp_path / "whole")
    for kill_after in range(0, 90, 7):
        path = tmp_path / f"killed{kill_after}"
        with pytest.raises(Killed):
            steady(path, kill_after=kill_after)
        with pytest.raises(Killed):
            steady(path, kill_after=11)
        records, resumed = steady(path)
        assert (plain(records), resumed) == (plain(expected), hypervolume)


def test_a_resume_replays_the_order_of_tells(tmp_path):
    path, first, again = tmp_path / "run", Tells(6, 4), Tells(6, 4)
    first.log, again.log = [], []
    with pytest.raises(Killed):
        steady(path, first, kill_after=60, executor=Overtaking())
    said = Messages()
    steady(path, again, executor=Overtaking(), listeners=[said])
    n_known = max(i for i, (kind, _) in enumerate(first.log) if kind == "tell")
    assert again.log[:n_known] == first.log[:n_known]
    assert not any("other candidates" in text for text in said.texts)


def test_what_is_left_is_told_by_the_pace_of_this_process(tmp_path):
    seen = []

    class Listener(SearchListener):
        def on_start(self, search):
            seen.append(search.remaining_s)

        def on_record(self, record, search):
            seen.append(search.remaining_s)

    search(tmp_path / "run", listeners=[Listener()])
    assert seen[0] is None
    assert all(seconds > 0 for seconds in seen[1:-1])
    assert seen[-1] == 0


class Messages(SearchListener):
    def __init__(self):
        self.texts = []

    def on_message(self, text):
        self.texts.append(text)


class Still(Cost):
    """Refuses to measure while something runs."""

    def run(self, subject):
        assert not RUNNING
        return super().run(subject)


RUNNING: list = []


class Watched(Overtaking):
    """Notes what runs; measurements need that nothing does."""

    measures_apart = False

    def run(self, evaluator, jobs, on_event):
        def note(event):
            if isinstance(event, Ended):
                RUNNING.remove(event.candidate)
            on_event(event)

        def noted():
            for job in jobs:
                if job is not None:
                    RUNNING.append(job.candidate.id)
                yield job

        super().run(evaluator, noted(), note)


def test_steadily_nothing_runs_during_a_measurement(tmp_path):
    RUNNING.clear()
    measuring = Evaluator({SPACE.name: SPACE}, (Still(),), None, is_last=False)
    records, _ = steady(tmp_path / "run", executor=Watched(), measuring=measuring)
    assert len(records) == 24
    assert all("cost" in record.metrics for record in records)


def test_steadily_where_one_runs_at_a_time_each_is_measured_just_before_its_training(tmp_path):
    controller = Tells(6, 4)
    controller.log = []
    point = {"score": -5.0, "cost": 20.0}
    records, _ = steady(tmp_path / "run", controller, constraints=(), given_reference_point=point)
    expected = [(kind, record.id) for record in records for kind in ("measure", "train")]
    assert expected == LOG
    assert [kind for kind, _ in controller.log] == ["ask", "tell"] * 24


def test_steadily_a_start_of_failures_alone_stops_the_run(tmp_path):
    def fail(subject):
        raise OSError("the data is not there")

    working = Evaluator({SPACE.name: SPACE}, (FunctionStage("score", fail),), None, frozenset({"score"}))
    with pytest.raises(EvaluationError, match="all 6 candidates of the first batch failed"):
        steady(tmp_path / "run", constraints=(), working=working)


@pytest.mark.parametrize("scheduling", Scheduling)
@pytest.mark.parametrize("executor", [SerialExecutor, Overtaking])
def test_a_start_of_failures_alone_is_asked_for_anew_when_resumed(tmp_path, scheduling, executor):
    is_mended = False

    def score_or_fail(subject):
        LOG.append(("train", subject.candidate.id))
        if not is_mended:
            raise OSError("the data is not there")
        return score(subject)

    working = Evaluator({SPACE.name: SPACE}, (FunctionStage("score", score_or_fail),), None, frozenset({"score"}))
    options = {"working": working, "scheduling": scheduling, "executor": executor(isolated=False)}
    for _ in range(2):
        with pytest.raises(
            EvaluationError, match="all 6 candidates of the first batch failed.* --resume asks for them"
        ):
            search(tmp_path / "run", constraints=(), **options)
    assert sum(kind == "train" for kind, _ in LOG) >= 6
    is_mended = True
    records, _ = search(tmp_path / "run", constraints=(), **options)
    assert len(records) == 24
    retried = [record for record in records if record.earlier_failures]
    assert {record.attempts for record in retried} == {3}
    assert [len(record.earlier_failures) for record in retried] == [2] * len(retried)
    assert any(record.is_complete for record in retried)


def test_a_run_smaller_than_a_batch_of_which_all_failed_is_stopped(tmp_path):
    def fail(subject):
        raise OSError("the data is not there")

    working = Evaluator({SPACE.name: SPACE}, (FunctionStage("score", fail),), None, frozenset({"score"}))
    with pytest.raises(EvaluationError, match="all 4 candidates of the first batch failed"):
        search(tmp_path / "run", constraints=(), working=working, budget=Budget(n_trained=4))


def test_under_hours_the_first_candidates_tell_the_pace_and_generations_stay_whole(tmp_path):
    records, _ = search(tmp_path / "run", budget=Budget(hours=100.0))
    assert [sum(r.batch == batch for r in records) for batch in range(5)] == [1, 5, 6, 6, 6]


class Bar(SearchListener):
    """Notes what a progress bar would show."""

    def __init__(self):
        self.totals, self.remaining = [], []

    def on_start(self, search):
        self.on_record(None, search)

    def on_record(self, record, search):
        self.totals.append(search.n_expected)
        self.remaining.append(search.remaining_s)


@pytest.mark.parametrize("scheduling", Scheduling)
def test_the_bar_fills_under_a_budget_and_knows_the_time_after_a_resume(tmp_path, scheduling):
    first, then = Bar(), Bar()
    search(tmp_path / "run", listeners=[first], budget=Budget(n_trained=6), scheduling=scheduling)
    records, _ = search(tmp_path / "run", listeners=[then], budget=Budget(n_trained=9), scheduling=scheduling)
    assert (first.totals[0], first.remaining[0]) == (6, None)
    assert then.remaining[0] > 0
    assert then.totals[-1] == len(records)


@pytest.mark.parametrize("scheduling", Scheduling)
def test_a_budget_of_trainings_is_kept_exactly_also_over_a_resume(tmp_path, scheduling):
    budget = Budget(n_trained=9)
    said = Messages()
    path = tmp_path / "run"
    with pytest.raises(Killed):
        search(path, scheduling=scheduling, budget=budget, kill_after=35)
    records, _ = search(path, scheduling=scheduling, budget=budget, listeners=[said])
    assert sum(record.state is not RecordState.INFEASIBLE for record in records) == 9
    assert all(record.state is not RecordState.ASKED for record in records)
    assert "The budget (n_trained 9) is used up." in said.texts
    whole, _ = search(tmp_path / "whole", scheduling=scheduling, budget=budget)
    assert plain(records) == plain(whole)
    with RunFolder.read(path) as folder:
        assert folder.store.fact("usage")["n_trained"] == 9
        assert folder.store.fact("finished_size") == len(records)


def test_a_larger_budget_goes_on_where_the_smaller_ended(tmp_path):
    path = tmp_path / "run"
    before, _ = search(path, budget=Budget(n_trained=6))
    after, _ = search(path, budget=Budget(n_trained=12))
    assert plain(after)[: len(before)] == plain(before)
    assert sum(record.state is not RecordState.INFEASIBLE for record in after) == 12


def test_hours_of_earlier_processes_count(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        search(path, kill_after=20)
    with RunFolder.write(path) as folder:
        usage = folder.store.fact("usage")
        assert usage["hours"] > 0
        folder.store.set_fact("usage", {**usage, "hours": 5.0})
    records, _ = search(path, budget=Budget(hours=5.0))
    assert len(records) == 6  # what was asked for is finished, nothing else is asked


def test_how_busy_everybody_was_adds_up_over_processes(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        search(path, kill_after=20)
    with RunFolder.write(path) as folder:
        before = folder.store.fact("busy_s")
        assert before.keys() == {"controller", "this process"}
        assert all(seconds > 0 for seconds in before.values())
        folder.store.set_fact("busy_s", {"controller": 100.0, "another": 50.0})
    search(path)
    with RunFolder.read(path) as folder:
        after = folder.store.fact("busy_s")
    assert 100 < after["controller"] < 110
    assert after["another"] == 50
    assert after["this process"] > 0
