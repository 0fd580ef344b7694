"""The durable facts of a run, in an SQLite file.

Only the process that searches writes it: candidates before they are evaluated, each reading as it is taken, each
verdict before the next candidate starts. Readers and a resumed run fold these facts into records; the search itself
keeps the records of open candidates in memory (`nas.search.recording`).
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from nas.errors import RunFolderError
from nas.store.damage import FACTS, NUMBER, Whereabouts, check_shape, damaged, reading, writing
from nas.store.folding import CONFIRMATION, folded
from nas.store.rows import SELECT_ASKS, SELECT_OBSERVATIONS, observation_of, record_of
from nas.values.objectives import Violation
from nas.values.records import (
    Candidate,
    Failure,
    Observation,
    Pruning,
    Record,
    RecordState,
    Role,
)

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE asks (
    number INTEGER PRIMARY KEY, candidate TEXT NOT NULL UNIQUE, role TEXT NOT NULL, batch INTEGER NOT NULL,
    space TEXT NOT NULL, genes TEXT NOT NULL, fingerprint TEXT NOT NULL, seed INTEGER NOT NULL,
    description TEXT NOT NULL, asked_at REAL NOT NULL);
CREATE TABLE batches (number INTEGER PRIMARY KEY, n_requested INTEGER NOT NULL);
CREATE TABLE observations (
    sequence INTEGER PRIMARY KEY, candidate TEXT NOT NULL REFERENCES asks (candidate), stage TEXT NOT NULL,
    attempt INTEGER NOT NULL, metric TEXT NOT NULL, value REAL NOT NULL, conditions TEXT NOT NULL,
    taken_at REAL NOT NULL);
CREATE INDEX observations_by_candidate ON observations (candidate);
CREATE TABLE verdicts (
    candidate TEXT PRIMARY KEY REFERENCES asks (candidate), state TEXT NOT NULL, attempts INTEGER NOT NULL,
    detail TEXT NOT NULL, ended_at REAL NOT NULL);
CREATE TABLE test_readings (
    sequence INTEGER PRIMARY KEY, candidate TEXT NOT NULL REFERENCES asks (candidate), purpose TEXT NOT NULL,
    taken_at REAL NOT NULL);
"""


class RunStore:
    """The facts of one run.

    Args:
        path: The SQLite file; made if it is not there, unless `read_only`.
        read_only: Open for reading alone; the file must exist.

    Attributes:
        path: As given.

    Raises:
        RunFolderError: If the file is missing, is no store, or was written by another version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        is_new = not path.exists()
        if read_only and is_new:
            raise RunFolderError(f"{path}: no such store; is this the folder of a run?")
        self.path = path
        self._read_only = read_only
        mode = "ro" if read_only else "rwc"
        with reading(path):
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
        try:
            with reading(path):
                self._prepare(is_new)
        except BaseException:
            self._db.close()
            raise
        self._whereabouts = Whereabouts(() if read_only else (path,))

    def _prepare(self, is_new: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if is_new:
            self._set_up()
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
            return
        if version == 0:
            raise damaged(self.path, "it holds nothing" if not self.path.stat().st_size else "it is no store of a run")
        if version != _SCHEMA_VERSION:
            raise RunFolderError(
                f"{self.path}: store version {version}; this pareto-nas reads version {_SCHEMA_VERSION}"
            )
        if not self._read_only:
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise damaged(self.path, found)
            self._set_up()

    def _set_up(self) -> None:
        """Prepare the connection for writing."""
        self._db.execute("PRAGMA journal_mode = WAL")  # stays as it is where the file system bears none
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")

    def watch(self, paths: Sequence[Path]) -> None:
        """Check from now on with every write that these, and the store, are where they are now."""
        self._whereabouts = Whereabouts((self.path, *paths))

    def check_in_place(self) -> None:
        """Check that the store, and what is watched with it, is where it was.

        Raises:
            MachineError: If something was deleted, moved or made read-only.
        """
        self._whereabouts.check()

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards.

        A writer leaves a single file that can be read from a folder where nothing can be written.
        """
        if not self._read_only:
            with contextlib.suppress(sqlite3.Error):  # somebody is reading: the next writer will do it
                self._db.execute("PRAGMA busy_timeout = 200")
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Writing

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all that is written inside, or nothing.

        Raises:
            MachineError: If the file cannot be written, or is not where it was.
        """
        with writing(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        self.check_in_place()

    def set_fact(self, key: str, value: Any) -> None:
        """Store a plain JSON value about the run as a whole, over an earlier one."""
        self.set_facts({key: value})

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Store plain JSON values about the run as a whole, over earlier ones: all of them or none."""
        with self._transaction():
            rows = [(key, json.dumps(value)) for key, value in facts.items()]
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def forget_facts(self) -> None:
        """Drop everything that is stored about the run as a whole; readers of the file are not disturbed."""
        with self._transaction():
            self._db.execute("DELETE FROM facts")

    def add_batch(
        self,
        candidates: Sequence[Candidate],
        *,
        batch: int,
        n_requested: int | None = None,
        role: Role = Role.CANDIDATE,
    ) -> list[Record]:
        """Store that these candidates were asked for: all of them or, if interrupted, none.

        Args:
            candidates: In the order of asking.
            batch: Its number.
            n_requested: How many the controller was asked for, if it gave fewer.
            role: Candidates of the search, or references.

        Returns:
            Their records, without readings and verdict.
        """
        with self._transaction():
            n_requested = len(candidates) if n_requested is None else n_requested
            self._db.execute("INSERT INTO batches VALUES (?, ?)", (batch, n_requested))
            (start,) = self._db.execute("SELECT COUNT(*) FROM asks").fetchone()
            records = [
                Record(candidate, RecordState.ASKED, {}, number, batch, attempts=0, role=role)
                for number, candidate in enumerate(candidates, start)
            ]
            self._db.executemany(
                "INSERT INTO asks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        record.number,
                        record.id,
                        role,
                        batch,
                        record.candidate.genotype.space,
                        json.dumps(record.candidate.genotype.genes),
                        record.candidate.fingerprint,
                        record.candidate.seed,
                        record.candidate.description,
                        time.time(),
                    )
                    for record in records
                ],
            )
        return records

    def add_observations(self, observations: Sequence[Observation]) -> None:
        """Store readings that were taken together: all of them or none."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO observations (candidate, stage, attempt, metric, value, conditions, taken_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        o.candidate,
                        o.stage,
                        o.attempt,
                        o.metric,
                        o.value,
                        json.dumps(o.conditions),
                        time.time(),
                    )
                    for o in observations
                ],
            )

    def add_verdict(
        self,
        candidate: str,
        state: RecordState,
        *,
        attempts: int = 1,
        violations: Sequence[Violation] = (),
        failure: Failure | None = None,
        pruning: Pruning | None = None,
    ) -> None:
        """Store how a candidate ended.

        Raises:
            sqlite3.IntegrityError: If it has ended already: a verdict is final, unless it is reopened.
        """
        detail: dict[str, Any] = {
            "violations": [asdict(violation) for violation in violations],
            "failure": asdict(failure) if failure else None,
            "pruning": asdict(pruning) if pruning else None,
        }
        with self._transaction():
            detail["last_asked"] = self._db.execute("SELECT MAX(number) FROM asks").fetchone()[0]
            reopened = self._db.execute(
                "DELETE FROM verdicts WHERE candidate = ? AND state = ? RETURNING detail",
                (candidate, RecordState.ASKED),
            ).fetchone()
            if reopened:
                detail["earlier_failures"] = json.loads(reopened[0])["earlier_failures"]
                self._db.execute("DELETE FROM verdicts WHERE candidate = ?", (candidate,))
            self._db.execute(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)",
                (candidate, state, attempts, json.dumps(detail), time.time()),
            )

    def reopen(self, failed: Sequence[Record]) -> None:
        """Take back the verdicts on `failed`, which are asked for anew; their failures stay in their records."""
        with self._transaction():
            for record in failed:
                failures = (*record.earlier_failures, *([record.failure] if record.failure else []))
                detail: dict[str, Any] = {"violations": [], "failure": None, "pruning": None, "last_asked": -1}
                detail["earlier_failures"] = [asdict(failure) for failure in failures]
                self._db.execute(
                    "UPDATE verdicts SET state = ?, detail = ? WHERE candidate = ? AND state = ?",
                    (RecordState.ASKED, json.dumps(detail), record.id, RecordState.FAILED),
                )

    def log_test_reading(self, candidate: str, purpose: str) -> None:
        """Store that the test split is about to be read for `candidate`."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO test_readings (candidate, purpose, taken_at) VALUES (?, ?, ?)",
                (candidate, purpose, time.time()),
            )

    # Reading

    def fact(self, key: str) -> Any:
        """Return a stored fact, or `None` if there is none of this key."""
        with reading(self.path):
            row = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            value = json.loads(row[0])
            check_shape(f"the fact {key!r}", value, FACTS.get(key, object))
            return value

    def observations(self, candidate: str | None = None) -> list[Observation]:
        """Return all readings in the order taken, of one candidate or of all."""
        select = SELECT_OBSERVATIONS
        with reading(self.path):
            if candidate is None:
                rows = self._db.execute(f"{select} ORDER BY sequence")
            else:
                rows = self._db.execute(f"{select} WHERE candidate = ? ORDER BY sequence", (candidate,))
            return [observation_of(row) for row in rows]

    def records(self, *, role: Role | None = Role.CANDIDATE, confirmed: bool = True) -> list[Record]:
        """Return the record of every candidate asked for, in the order of asking.

        Args:
            role: Which networks; `None` for all.
            confirmed: Whether readings taken again for the final front replace the first ones. A controller
                is told the first ones, during the run and when it is replayed.
        """
        # Verdicts are read before readings: in a run in progress a record then never lacks readings of its verdict.
        with reading(self.path):
            rows = self._db.execute(f"{SELECT_ASKS} ORDER BY a.number").fetchall()
            readings: dict[str, list[Observation]] = {}
            for observation in self.observations():
                readings.setdefault(observation.candidate, []).append(observation)
            found = [record for record in map(record_of, rows) if role is None or record.role is role]
            return [folded(record, readings.get(record.id, []), confirmed=confirmed) for record in found]

    def record(self, candidate: str, *, confirmed: bool = True) -> Record:
        """Return one record; `confirmed` as for `records`.

        Raises:
            KeyError: If this candidate was never asked for.
        """
        with reading(self.path):
            row = self._db.execute(f"{SELECT_ASKS} WHERE a.candidate = ?", (candidate,)).fetchone()
            if row is not None:
                return folded(record_of(row), self.observations(candidate), confirmed=confirmed)
        raise KeyError(candidate)

    def confirmed_metrics(self) -> dict[str, set[str]]:
        """Return by candidate the metrics that the confirmation of the front has read."""
        confirmed: dict[str, set[str]] = {}
        with reading(self.path):
            rows = self._db.execute("SELECT candidate, metric FROM observations WHERE stage = ?", (CONFIRMATION,))
            for candidate, metric in rows:
                confirmed.setdefault(candidate, set()).add(metric)
        return confirmed

    def endings(self) -> list[tuple[str, int]]:
        """Return who ended, in that order, each with the number of the last candidate asked for until then."""
        with reading(self.path):
            rows = self._db.execute(
                "SELECT candidate, detail FROM verdicts WHERE state != ? ORDER BY rowid", (RecordState.ASKED,)
            )
            return [(candidate, int(json.loads(detail).get("last_asked", -1))) for candidate, detail in rows]

    def times(self) -> dict[str, tuple[float, float | None]]:
        """Return by candidate when it was asked for and when it ended (`None`: not yet), in seconds since the epoch."""
        with reading(self.path):
            rows = self._db.execute(
                "SELECT a.candidate, a.asked_at, v.ended_at FROM asks a LEFT JOIN verdicts v"
                " ON v.candidate = a.candidate AND v.state != ? ORDER BY a.number",
                (RecordState.ASKED,),
            ).fetchall()
            check_shape("times", [row[1] for row in rows], [NUMBER])
            check_shape("times", [row[2] for row in rows if row[2] is not None], [NUMBER])
            return {candidate: (asked, ended) for candidate, asked, ended in rows}

    def reading_times(self) -> list[tuple[str, str, float]]:
        """Return candidate, stage and time (seconds since the epoch) of every reading, in the order taken."""
        with reading(self.path):
            rows = self._db.execute("SELECT candidate, stage, taken_at FROM observations ORDER BY sequence").fetchall()
            check_shape("times", [row[2] for row in rows], [NUMBER])
            return rows

    def n_requested(self, batch: int) -> int:
        """Return how many candidates the controller was asked for when it gave `batch`."""
        with reading(self.path):
            row = self._db.execute("SELECT n_requested FROM batches WHERE number = ?", (batch,)).fetchone()
            return int(row[0])

    @property
    def n_asked(self) -> int:
        """How many networks were asked for, references among them."""
        with reading(self.path):
            (n_asked,) = self._db.execute("SELECT COUNT(*) FROM asks").fetchone()
            return int(n_asked)

    def test_readings(self) -> list[tuple[str, str, float]]:
        """Return every reading of the test split: candidate, purpose, seconds since the epoch."""
        with reading(self.path):
            return list(self._db.execute("SELECT candidate, purpose, taken_at FROM test_readings ORDER BY sequence"))
