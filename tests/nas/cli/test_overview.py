"""Runs from afar: `nas runs`, `nas watch`, `nas report`."""

import json
import shutil

import pytest
from filelock import FileLock

from nas import api
from nas.analysis.watching import Pace
from nas.errors import InputError
from nas.store.run_store import RunStore
from nas.values.records import RecordState
from tests.nas.cli.faults import assert_fault
from tests.nas.cli.test_stopping import start, wait_for_line


def test_runs_are_listed_with_state_and_size(command, copy):
    shutil.copytree(copy, copy.parent / "other")
    with RunStore(copy.parent / "other" / "store.sqlite") as store:
        store.set_fact("finished_size", 0)
    (copy.parent / "broken").mkdir()
    (copy.parent / "broken" / "store.sqlite").write_bytes(b"no store")
    code, out, _ = command("runs", copy.parent, "--json")
    found = {one["path"].rpartition("/")[2]: one for one in json.loads(out)}
    assert code == 0
    assert {name: one["state"] for name, one in found.items()} == {
        "tiny": "finished", "other": "unfinished", "broken": "unreadable",
    }  # fmt: skip
    assert found["tiny"]["front_size"] > 0
    assert found["tiny"]["n_bytes"] > 1000
    assert set(found["tiny"]["best"]) >= {"accuracy"}
    _, out, _ = command("runs", copy.parent)
    assert "unfinished" in out
    assert "accuracy" in out


def test_a_run_that_is_written_to_is_running(command, copy):
    with FileLock(copy / ".lock"):
        _, out, _ = command("runs", copy, "--json")
    assert [one["state"] for one in json.loads(out)] == ["running"]


def test_folders_without_runs(command, tmp_path):
    assert command("runs", tmp_path)[1] == f"{tmp_path} holds no runs.\n"
    assert_fault(command("runs", tmp_path / "none"), "none is no folder")
    assert_fault(command("watch", tmp_path), "is not the folder of a run")


def test_watch_shows_front_and_progress(command, copy):
    _, out, _ = command("watch", copy)
    assert "Pareto front of tiny" in out
    assert "tiny: finished; 12 candidates have ended" in out


def test_watch_names_the_last_failures(command, copy):
    with RunStore(copy / "store.sqlite") as store:
        one = next(record for record in store.records() if record.is_complete)
        store._db.execute(
            "UPDATE verdicts SET state = ?, detail = json_set(detail, '$.failure', json(?)) WHERE candidate = ?",
            (RecordState.FAILED, json.dumps({"stage": "training", "reason": "it broke", "traceback": ""}), one.id),
        )
    _, out, _ = command("watch", copy)
    assert "Last failures" in out
    assert "it broke" in out


@pytest.mark.parametrize(
    ("ends", "n_planned", "expected"),
    [
        ([], 10, (None, None)),
        ([5.0], 10, (None, None)),
        ([0.0, 36.0, 72.0], 5, (100.0, 72.0)),
        ([0.0, 36.0, 72.0], 0, (100.0, None)),
        ([0.0, 36.0, 72.0], 2, (100.0, 0.0)),
    ],
)
def test_the_pace_is_that_of_the_last_ones(ends, n_planned, expected):
    pace = Pace.of(ends, n_planned)
    assert (pace.per_hour, pace.left_s) == expected


@pytest.mark.slow
def test_watch_beside_a_search_leaves_it_alone(command, tiny_config, tmp_path):
    process = start("search", tiny_config, "--run-dir", tmp_path / "runs" / "run")
    wait_for_line(process, "1/12 ")
    _, out, _ = command("watch", tmp_path / "runs" / "run")
    assert ": running; " in out
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_the_command_writes_the_page_into_the_runs_folder(command, copy, tmp_path):
    code, out, _ = command("report", copy)
    assert (code, out.strip()) == (0, str(copy / "report.html"))
    text = (copy / "report.html").read_text(encoding="utf-8")
    assert 'http-equiv="Content-Security-Policy"' in text
    assert len(text) < 8e6
    assert_fault(command("report", tmp_path), "is not the folder of a run")
    with pytest.raises(InputError, match="cannot be written"):
        api.report(copy, copy / "config.yaml" / "report.html")


def test_the_report_of_a_running_search_follows_it(command, copy, monkeypatch):
    states = iter([True, False])
    monkeypatch.setattr("nas.store.run_folder.RunFolder.is_in_use", staticmethod(lambda path: next(states, False)))
    monkeypatch.setattr("nas.cli.overview.time.sleep", lambda seconds: None)
    code, out, _ = command("report", copy, "--watch")
    assert (code, out.count("report.html")) == (0, 2)
