"""Several seeds for a candidate, and new seeds for the front."""

import io
import json
import statistics

import pytest
from rich.console import Console

import nas
from nas.analysis import front_table, to_csv, to_json
from nas.config import load_config
from nas.errors import ConfigurationError, EvaluationError
from nas.evaluation import Need, SeededStage, Stage, Subject
from nas.evaluation.seeds import seed_number
from nas.search.confirmation import FrontConfirmation
from nas.store.folding import CONFIRMATION
from nas.store.run_folder import RunFolder
from nas.values.recipes import EpochSummary
from nas.values.records import Candidate, Observation
from search_spaces.spaces.integers import Integers

pytestmark = pytest.mark.trains

SPACE = Integers(n_genes=3, n_values=4)


class Noisy(Stage):
    """Gives what the seed says, in two epochs."""

    name = "training"
    needs = frozenset({Need.DATA})
    provides = frozenset({"score"})

    def __init__(self):
        self.seeds = []

    def run(self, subject):
        self.seeds.append(subject.seed)
        for epoch in (1, 2):
            subject.on_epoch(EpochSummary(epoch, 2, 0.0, 0.0))
        if subject.seed % 7 == 3:
            raise EvaluationError("diverged")
        return [
            *subject.observe("training@1", {"score@1": subject.seed % 5}),
            *subject.observe(self.name, {"score": subject.seed % 11}, {"epochs": 2}),
        ]


def subject_of(seed, **options):
    candidate = Candidate("c", SPACE.genotype([0, 1, 2]), "f", seed, "")
    return Subject(candidate, SPACE, **options)


def test_a_candidates_seeds_are_its_own_and_others_far_from_it():
    assert seed_number(12, 0) == 12
    assert len({seed_number(12 + i, k) for i in range(50) for k in range(4)}) == 200


def test_the_mean_is_given_with_every_reading_and_their_spread():
    stage, epochs = Noisy(), []
    several = SeededStage(stage, range(3))
    assert (several.name, several.needs, several.provides) == (stage.name, stage.needs, stage.provides)
    score_1, score = several.run(subject_of(12, on_epoch=lambda e: epochs.append((e.epoch, e.n_epochs))))
    seeds = [seed_number(12, 2), seed_number(12, 1), 12]
    assert stage.seeds == seeds  # the candidate's own last: its weights are kept
    assert epochs == [(i, 6) for i in range(1, 7)]
    values = [seed % 11 for seed in seeds]
    conditions = {"epochs": 2, "seeds": [2, 1, 0], "rounds": values, "spread": statistics.stdev(values)}
    assert score == Observation("c", "training", 1, "score", statistics.mean(values), conditions)
    assert score_1.value == pytest.approx(statistics.mean(seed % 5 for seed in seeds))


def test_one_seed_has_no_spread_and_a_seed_that_fails_fails_all():
    (_, score) = SeededStage(Noisy(), [0]).run(subject_of(12))
    assert "spread" not in score.conditions
    with pytest.raises(EvaluationError, match="diverged"):
        SeededStage(Noisy(), range(2)).run(subject_of(3))


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    return nas.run_search(tiny_config, tmp_path_factory.mktemp("seeds") / "runs" / "run", overrides=OVERRIDES)


OVERRIDES = ["seeds_per_candidate=2", "front_seeds=3", "controller.n_generations=2"]


def test_a_searchs_scores_are_means_and_its_front_is_trained_again(run, tiny_config):
    with RunFolder.read(run.path) as folder:
        readings = folder.store.observations()
    trained = [o for o in readings if o.stage == "training" and o.metric == "accuracy"]
    assert all(o.conditions["seeds"] == [1, 0] for o in trained)
    assert all(o.value == pytest.approx(statistics.mean(o.conditions["rounds"])) for o in trained)
    again = {o.candidate: o for o in readings if o.stage == CONFIRMATION and o.metric == "accuracy"}
    for record in run.front:
        assert again[record.id].conditions["seeds"] == [4, 3, 2]
        assert record.metrics["accuracy"] == again[record.id].value
        assert record.spread("accuracy") == pytest.approx(statistics.stdev(again[record.id].conditions["rounds"]))
        assert record.spread("latency_ms") is None
    # finished: nothing is trained once more
    nas.run_search(tiny_config, run.path, overrides=OVERRIDES)
    with RunFolder.read(run.path) as folder:
        assert folder.store.observations() == readings


def test_the_spread_is_shown(run):
    console = Console(file=io.StringIO(), width=200)
    console.print(front_table(run))
    shown = console.file.getvalue()
    best = run.front[0]
    assert f"{best.metrics['accuracy']:.4g} ± {best.spread('accuracy'):.2g}" in shown
    assert "± standard deviation over seeds" in shown
    plain = json.loads(to_json(run))[0]
    assert plain["accuracy_spread"] == best.spread("accuracy")
    assert "accuracy_spread" in to_csv(run).splitlines()[0]


def test_the_kept_weights_are_those_of_the_candidates_own_seed(run, tiny_config, tmp_path):
    single = nas.run_search(tiny_config, tmp_path / "runs" / "run", overrides=["controller.n_generations=1"])
    first = [record.id for record in single.records if record.is_complete]
    for name in first:
        files = [path / "weights" / f"{name}.quick.safetensors" for path in (run.path, single.path)]
        assert files[0].read_bytes() == files[1].read_bytes()


class Killed(BaseException):
    """Stands for a `kill -9`."""


def test_killed_while_the_front_is_trained_again_a_run_ends_as_if_it_never_was(run, tiny_config, tmp_path, monkeypatch):
    store_confirmed, n_calls = FrontConfirmation._keep, []

    def kill_at_the_second(self, observations):
        n_calls.append(1)
        if len(n_calls) == 2:
            raise Killed
        store_confirmed(self, observations)

    path = tmp_path / "runs" / "run"
    with monkeypatch.context() as patch:
        patch.setattr(FrontConfirmation, "_keep", kill_at_the_second)
        with pytest.raises(Killed):
            nas.run_search(tiny_config, path, overrides=OVERRIDES)
    resumed = nas.run_search(tiny_config, path, overrides=OVERRIDES, resume=True)
    assert to_json(resumed, all_records=True) == to_json(run, all_records=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["seeds_per_candidate=0"], "seeds_per_candidate must be an integer of at least 1, got 0"),
        (["front_seeds=-1"], "front_seeds must be an integer of at least 0, got -1"),
        (["seeds_per_candidate=x"], "seeds_per_candidate must be an integer of at least 1, got 'x'"),
        (["front_seeds=2", "training=null"], "front_seeds needs a training section: only trainings depend on the seed"),
    ],
)
def test_faults_of_the_configuration(tiny_config, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        load_config(tiny_config, changes)
