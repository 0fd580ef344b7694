"""Records in hand: they equal those of the store, and the store is not asked for them."""

from collections import Counter

import pytest

from nas.controllers import Nsga2
from nas.evaluation import Evaluator, Stage
from nas.search.listener import ListenerGroup, SearchListener
from nas.search.loop import Search
from nas.search.parts import Scheduling
from nas.store.run_folder import RunFolder
from nas.values.records import Candidate, RecordState, Role
from search_spaces.spaces.integers import Integers
from tests.nas.search.test_search import SPACE, Killed, halving, parts, search

OTHER = Integers(n_genes=6, n_values=4)
REFERENCE = Candidate.create(
    OTHER, OTHER.genotype([3, 1, 3, 3, 3, 3]), 3
)  # outside the bounds, which do not hold for it


class Training(Stage):
    """Gives losses of epochs and conditions, and fails now and then."""

    name = "training"
    needs = frozenset()
    provides = frozenset({"score"})

    def run(self, subject):
        value = subject.genotype.genes[1]
        if value == 2:
            raise ValueError("this one cannot be trained")
        losses = subject.observe("training@epochs", {f"task_loss[{epoch}]": 1 / epoch for epoch in (1, 2)})
        return [*losses, *subject.observe(self.name, {"score": value}, {"epochs": 2, "rounds": [value, 1.5]})]


class Compares(SearchListener):
    """Compares each record that ended with the stored one."""

    def __init__(self):
        self.seen, self.differing = [], []

    def on_record(self, record, search):
        is_stored = record == search.folder.store.record(record.id, confirmed=False)
        if not (is_stored and (record.role is Role.REFERENCE or search.records[-1] is record)):
            self.differing.append(record)
        self.seen.append(record)


def trained(**changes):
    working = Evaluator({SPACE.name: SPACE}, (Training(),), None, frozenset({"cost", "score"}))
    return {"working": working, "references": (REFERENCE,), **changes}


@pytest.mark.parametrize("scheduling", Scheduling)
def test_a_record_in_hand_is_the_stored_one_also_after_a_resume(tmp_path, scheduling):
    first, then = Compares(), Compares()
    with pytest.raises(Killed):
        search(tmp_path / "run", kill_after=45, listeners=[first], **trained(scheduling=scheduling))
    records, _ = search(tmp_path / "run", listeners=[then], **trained(scheduling=scheduling))
    assert first.differing == then.differing == []
    assert first.seen[0].role is Role.REFERENCE
    assert first.seen[0].epoch_losses == (1.0, 0.5)
    seen = {record.id: record for record in (*first.seen, *then.seen) if record.role is Role.CANDIDATE}
    assert [seen.get(record.id, record) for record in records] == records
    assert min(len(first.seen), len(then.seen), len(seen) - len(records) + 2) > 0  # the kill may have hidden one
    assert {record.state for record in records} == {RecordState.COMPLETE, RecordState.INFEASIBLE, RecordState.FAILED}


def test_a_pruned_record_in_hand_is_the_stored_one(tmp_path):
    listener = Compares()
    search(tmp_path / "run", listeners=[listener], **halving())
    assert listener.differing == []
    assert RecordState.PRUNED in {record.state for record in listener.seen}


def queries(path, n_generations, scheduling):
    """Return how often each table was read during a search."""
    reads = Counter()

    def trace(sql):
        if sql.startswith("SELECT"):
            reads[sql.partition(" FROM ")[2].split()[0]] += 1

    with RunFolder.write(path) as folder:
        folder.store._db.set_trace_callback(trace)
        Search(parts(Nsga2(6, n_generations), scheduling=scheduling), folder).run()
        folder.store._db.set_trace_callback(None)
        records = folder.store.records()
    assert len(records) == 6 * n_generations
    return reads


@pytest.mark.parametrize("scheduling", Scheduling)
def test_no_record_and_no_reading_is_read_back_for_a_candidate(tmp_path, scheduling):
    few, many = (queries(tmp_path / str(n), n, scheduling) for n in (3, 6))
    assert few["observations"] == many["observations"] == 2  # at the start, and to confirm the front
    assert few["facts"] == many["facts"]
    # The number of the last candidate asked for: once for each batch that is asked for, once for each verdict.
    n_batches = 3 if scheduling is Scheduling.GENERATIONAL else 18
    assert many["asks"] - few["asks"] == 18 + n_batches


def test_a_group_passes_every_callback_on_in_order():
    called = []

    def noted(name):
        return lambda self, *arguments: called.append((self.label, name))

    names = [name for name in vars(SearchListener) if name.startswith("on_")]
    listener = type("Listener", (SearchListener,), {name: noted(name) for name in names})
    first, second = listener(), listener()
    first.label, second.label = "first", "second"
    group = ListenerGroup([first, second])
    n_arguments = {"on_epoch": 2, "on_record": 2, "on_progress": 3}
    for name in names:
        getattr(group, name)(*[None] * n_arguments.get(name, 1))
    assert called == [(label, name) for name in names for label in ("first", "second")]
