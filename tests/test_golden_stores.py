"""Stores that earlier releases left behind are resumed, or refused as they are."""

import contextlib
import shutil
import sqlite3

import pytest

import nas
from nas.errors import RunFolderError
from nas.store.run_folder import RunFolder
from nas.version import VERSION
from tests.golden_stores import CONFIGURATION, N_ENDED, ROOT, STORES, killed_search
from tests.test_numbers import outcome

NAMES = sorted(path.name for path in STORES.iterdir())


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)  # the table is named from there


@pytest.fixture
def copied(tmp_path):
    def copy(name):
        shutil.copytree(STORES / name, tmp_path / name)
        return tmp_path / name

    return copy


def content(store):
    with contextlib.closing(sqlite3.connect(store)) as database:
        return [*database.iterdump(), database.execute("PRAGMA user_version").fetchone()]


def test_each_release_has_its_store():
    assert VERSION in NAMES
    assert sum(path.stat().st_size for path in STORES.rglob("*") if path.is_file()) < 100_000 * len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_as_it_was_written(name):
    run = nas.load_run(STORES / name)
    assert (run.name, run.finished_size, run.counts()) == ("golden", 0, {"complete": N_ENDED, "asked": 3})
    assert [str(objective.metric) for objective in run.objectives] == ["accuracy", "latency_ms"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_resumed_to_what_an_uninterrupted_search_finds(name, copied, tmp_path):
    path = copied(name)
    before = outcome(nas.load_run(path))[:N_ENDED]
    resumed = nas.run_search(path / "config.yaml", path, resume=True)
    assert resumed.finished_size == 16
    assert outcome(resumed)[:N_ENDED] == before
    assert outcome(resumed) == outcome(nas.run_search(CONFIGURATION, tmp_path / "whole"))


def test_todays_code_makes_the_store_of_this_release(tmp_path):
    killed_search(tmp_path / "run")
    assert outcome(nas.load_run(tmp_path / "run")) == outcome(nas.load_run(STORES / VERSION))


@pytest.mark.parametrize("version", [2, 99, -1])
def test_a_store_of_another_version_is_refused_and_stays_as_it_is(version, copied):
    store = copied(VERSION) / "store.sqlite"
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    before = content(store)
    with pytest.raises(RunFolderError, match=f"store version {version}; this pareto-nas reads version 1"):
        nas.run_search(CONFIGURATION, store.parent, resume=True)
    with pytest.raises(RunFolderError, match=f"store version {version}"):
        RunFolder.read(store.parent)
    assert content(store) == before
    assert sorted(path.name for path in store.parent.iterdir() if path.is_file() and path.name[0] != ".") == [
        "config.yaml",
        "store.sqlite",
    ]
