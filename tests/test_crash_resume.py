"""The short form of experiments/crash_resume: a few kills of each kind; and the experiment's own counting."""

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor

import pytest

from experiments.crash_resume.__main__ import COUNTS, differences, is_lost, killed_trial, survived
from experiments.crash_resume.killing import Command, in_fork
from experiments.crash_resume.trials import TRIALS, Trial, ended, leftovers, outcome

_FAKE = TRIALS[0]
_FUNCTIONS = {
    "name": "trial",
    "search_space": {"kind": "integers", "n_genes": 4, "n_values": 5},
    "metrics": {name: {"function": f"experiments.crash_resume.functions:{name}"} for name in ("score", "price")},
    "objectives": [{"metric": "score", "direction": "maximize"}, {"metric": "price", "direction": "minimize"}],
    "controller": {"kind": "nsga2", "population_size": 8, "n_generations": 4},
    "tensorboard": False,
}
IN_ONE_PROCESS = Trial(
    "in one process", {**_FUNCTIONS, "execution": {"kind": "serial", "isolated": False}}, _FAKE.commands
)
WITH_WORKERS = Trial("with workers", {**_FUNCTIONS, "execution": {"kind": "process_pool"}}, _FAKE.commands)


class Kills:
    """Stands for the random numbers: kills of one kind, after a time that grows until the command survives."""

    def __init__(self, kind, seconds):
        self.kind, self.seconds = kind, seconds

    def choice(self, options):
        return self.kind if self.kind in options else options[0]

    def expovariate(self, rate):
        self.seconds *= 2.5
        return self.seconds


def in_a_fresh_process(function, *arguments):
    """Call `function` where commands can be forked: a used process would leave them its exit functions and threads."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


TRIAL_AND_KIND = [
    (IN_ONE_PROCESS, "group"),
    pytest.param(WITH_WORKERS, "group", marks=pytest.mark.slow),
    pytest.param(WITH_WORKERS, "parent", marks=pytest.mark.slow),
    pytest.param(WITH_WORKERS, "worker", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("trial", "kind"), TRIAL_AND_KIND)
def test_killed_and_resumed_a_search_ends_as_if_it_never_was(tmp_path, trial, kind):
    in_a_fresh_process(check_that_kills_change_nothing, tmp_path, trial, kind)


def check_that_kills_change_nothing(tmp_path, trial, kind):
    trial.prepare(tmp_path / "whole")
    whole = Command(trial.commands[0], tmp_path / "whole")
    assert whole.wait(300.0)
    assert whole.exit_code == 0, (tmp_path / "whole" / "log.txt").read_text()
    expected = in_fork(outcome, tmp_path / "whole")
    counts, found = killed_trial(trial, tmp_path / "killed", [1.0], Kills(kind, 0.2))
    assert counts["kills"] > 0
    assert (counts["finished"], counts["lost"], counts["orphans"], counts["leftovers"]) == (1, 0, 0, 0)
    assert differences(found, expected) == []


def test_what_differs_and_what_is_left_is_seen(tmp_path):
    assert differences({"front": ["a"]}, {"front": ["b"]}) == ["front: ['a'] instead of ['b']"]
    for name in (".x.1.npy", ".lock", "a.npy", "store.sqlite-wal"):
        (tmp_path / name).write_text("")
    assert leftovers(tmp_path) == [".x.1.npy", "store.sqlite-wal"]
    assert ended(tmp_path) == {}


def test_a_command_that_fails_by_itself_ends_the_experiment(tmp_path):
    in_a_fresh_process(check_that_a_failing_command_raises, tmp_path)


def check_that_a_failing_command_raises(tmp_path):
    IN_ONE_PROCESS.prepare(tmp_path / "x")
    counts = dict.fromkeys(COUNTS, 0)
    with pytest.raises(RuntimeError, match="exit code 2: .*no_such.yaml"):
        survived(Command(["validate", "no_such.yaml"], tmp_path / "x"), 1e6, counts, random.Random(0), tmp_path / "x")


def test_scores_that_come_are_no_loss_and_scores_that_go_are():
    before = {"id": "a", "metrics": {"score": "0x1p0"}, "retrained": {}}
    tested = {**before, "retrained": {"accuracy": "0x1p-1"}}
    assert not is_lost(before, before)
    assert not is_lost(before, tested)
    assert is_lost(tested, before)
    assert is_lost(before, {**before, "metrics": {}})
