"""A run's folder that somebody else made: nothing in its store leads out of it, or to the terminal."""

import io
import json
import shutil
import sqlite3

import pytest
from rich.console import Console

import nas
from nas.analysis.plots import save_plots
from nas.analysis.tables import front_table, records_table, to_csv, to_json
from nas.cli.runs import print_front
from nas.errors import RunFolderError
from nas.store.run_folder import weights_path
from nas.values.records import is_candidate_id

ESCAPE = "\x1b[2J\x1b]0;owned\x07\u202e"


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def change(run, *statements):
    with sqlite3.connect(run / "store.sqlite") as database:
        for statement, values in statements:
            assert database.execute(statement, values).rowcount > 0
    database.close()


@pytest.mark.parametrize("identity", ["../../x", "/etc/x", "..", "", "a/b", "a.b", "a\x00b", "\x1b[2J", "a" * 65, "-x"])
def test_an_id_that_could_lead_elsewhere_is_refused(run, identity):
    candidate = nas.load_run(run).knee.id
    change(
        run,
        ("UPDATE asks SET candidate = ? WHERE candidate = ?", (identity, candidate)),
        ("UPDATE observations SET candidate = ? WHERE candidate = ?", (identity, candidate)),
        ("UPDATE verdicts SET candidate = ? WHERE candidate = ?", (identity, candidate)),
    )
    for use in (nas.load_run, nas.export, lambda path: nas.retrain(path, str(identity), 1)):
        with pytest.raises(RunFolderError, match="which is no id of one") as raised:
            use(run)
        assert "\x1b" not in str(raised.value)
    assert sorted(path.name for path in run.parent.iterdir()) == ["run"]


def test_paths_of_weights_stay_in_the_folder(tmp_path):
    assert weights_path(tmp_path, "3f9a1c0d2e").parent == tmp_path / "weights"
    with pytest.raises(RunFolderError, match="is no id of a candidate"):
        weights_path(tmp_path, "../../x")
    assert not is_candidate_id(None)


def test_escape_sequences_of_a_store_do_not_reach_the_terminal(run):
    change(
        run,
        ("UPDATE asks SET description = ?", (f"=cmd {ESCAPE} [bold]",)),
        ("UPDATE facts SET value = ? WHERE key = 'name'", (json.dumps(ESCAPE),)),
        ("UPDATE verdicts SET state = 'failed', detail = ? WHERE rowid = 1", (failure(),)),
    )
    found, screen = nas.load_run(run), io.StringIO()
    console = Console(file=screen, width=300)
    print_front(console, found)
    console.print(front_table(found))
    console.print(records_table(found))
    shown = screen.getvalue() + to_csv(found, all_records=True) + to_json(found, all_records=True)
    assert "\\x1b[2J" in shown
    assert "[bold]" in shown
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}


def failure():
    detail = {"stage": ESCAPE, "reason": ESCAPE, "traceback": ESCAPE}
    return json.dumps({"violations": [], "failure": detail, "pruning": None, "last_asked": 0})


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DELETE FROM facts WHERE key = 'objectives'", "not what was optimised"),
        ("UPDATE observations SET metric = 'accurady' WHERE metric = 'accuracy'", "is complete without accuracy"),
        (
            "UPDATE facts SET value = '{\"x\": 1}' WHERE key = 'reference_point'",
            "reference point lacks accuracy, latency_ms",
        ),
    ],
)
def test_a_store_whose_rows_contradict_each_other_is_refused(run, statement, fault):
    change(run, (statement, ()))
    with pytest.raises(RunFolderError, match=fault):
        nas.load_run(run)


def test_the_metrics_of_a_hostile_store_name_no_files_elsewhere(run):
    name = json.dumps([{"metric": "../../x", "direction": "maximize"}, {"metric": "y", "direction": "minimize"}])
    point = json.dumps({"../../x": 0.0, "y": 1.0})
    change(run, ("UPDATE facts SET value = ? WHERE key = 'objectives'", (name,)))
    change(run, ("UPDATE facts SET value = ? WHERE key = 'reference_point'", (point,)))
    change(run, ("UPDATE observations SET metric = '../../x' WHERE metric = 'accuracy'", ()))
    change(run, ("UPDATE observations SET metric = 'y' WHERE metric = 'latency_ms'", ()))
    for path in save_plots(nas.load_run(run), run / "plots"):
        assert path.parent == run / "plots"
        assert "/" not in path.name
