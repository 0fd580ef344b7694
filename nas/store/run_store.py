"""The durable facts of a run, in an SQLite file.

Only the process that searches writes it: candidates before they are evaluated, each reading as it is taken, each
verdict before the next candidate starts. Readers and a resumed run fold these facts into records; the search itself
keeps the records of open candidates in memory (`nas.search.recording`).
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from nas.errors import RunFolderError
from nas.store.folding import CONFIRMATION, folded
from nas.values.objectives import Violation
from nas.values.records import (
    Candidate,
    Failure,
    Observation,
    Pruning,
    Record,
    RecordState,
    Role,
    is_candidate_id,
)
from nas.values.shown_text import shown
from search_spaces.genotype import Genotype

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

_SELECT_ASKS = (
    "SELECT a.number, a.candidate, a.role, a.batch, a.space, a.genes, a.fingerprint, a.seed, a.description,"
    " v.state, v.attempts, v.detail FROM asks a LEFT JOIN verdicts v USING (candidate)"
)


class RunStore:
    """The facts of one run.

    Args:
        path: The SQLite file; made if it is not there, unless `read_only`.
        read_only: Open for reading alone; the file must exist.

    Raises:
        RunFolderError: If the file is missing, is no store, or was written by another version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.exists():
            raise RunFolderError(f"{path}: no such store; is this the folder of a run?")
        self._path = path
        self._read_only = read_only
        mode = "ro" if read_only else "rwc"
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
        try:
            self._prepare(read_only)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise RunFolderError(f"{path}: not a store of a run ({error})") from error

    def _prepare(self, read_only: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")  # stays as it is where the file system bears none
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
                return
        if version != _SCHEMA_VERSION:
            self._db.close()
            raise RunFolderError(
                f"{self._path}: store version {version}; this pareto-nas reads version {_SCHEMA_VERSION}"
            )

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards.

        A writer leaves a single file that can be read from a folder where nothing can be written.
        """
        if not self._read_only:
            with contextlib.suppress(sqlite3.OperationalError):  # somebody is reading: the next writer will do it
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
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def set_fact(self, key: str, value: Any) -> None:
        """Store a plain JSON value about the run as a whole, over an earlier one."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value)))

    def forget_facts(self) -> None:
        """Drop everything that is stored about the run as a whole; readers of the file are not disturbed."""
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
            sqlite3.IntegrityError: If it has ended already: a verdict is final.
        """
        detail = {
            "violations": [asdict(violation) for violation in violations],
            "failure": asdict(failure) if failure else None,
            "pruning": asdict(pruning) if pruning else None,
            "last_asked": self._db.execute("SELECT MAX(number) FROM asks").fetchone()[0],
        }
        self._db.execute(
            "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)",
            (candidate, state, attempts, json.dumps(detail), time.time()),
        )

    def log_test_reading(self, candidate: str, purpose: str) -> None:
        """Store that the test split is about to be read for `candidate`."""
        self._db.execute(
            "INSERT INTO test_readings (candidate, purpose, taken_at) VALUES (?, ?, ?)",
            (candidate, purpose, time.time()),
        )

    # Reading

    def fact(self, key: str) -> Any:
        """Return a stored fact, or `None` if there is none of this key."""
        row = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def observations(self, candidate: str | None = None) -> list[Observation]:
        """Return all readings in the order taken, of one candidate or of all."""
        select = "SELECT candidate, stage, attempt, metric, value, conditions FROM observations"
        if candidate is None:
            rows = self._db.execute(f"{select} ORDER BY sequence")
        else:
            rows = self._db.execute(f"{select} WHERE candidate = ? ORDER BY sequence", (candidate,))
        return [
            Observation(candidate, stage, attempt, metric, value, json.loads(conditions))
            for candidate, stage, attempt, metric, value, conditions in rows
        ]

    def records(self, *, role: Role = Role.CANDIDATE, confirmed: bool = True) -> list[Record]:
        """Return the record of every candidate asked for, in the order of asking.

        Args:
            role: Which networks.
            confirmed: Whether readings taken again for the final front replace the first ones. A controller
                is told the first ones, during the run and when it is replayed.
        """
        # Verdicts are read before readings: in a run in progress a record then never lacks readings of its verdict.
        rows = self._db.execute(f"{_SELECT_ASKS} WHERE a.role = ? ORDER BY a.number", (role,)).fetchall()
        readings: dict[str, list[Observation]] = {}
        for observation in self.observations():
            readings.setdefault(observation.candidate, []).append(observation)
        return [folded(_record(row), readings.get(row[1], []), confirmed=confirmed) for row in rows]

    def record(self, candidate: str, *, confirmed: bool = True) -> Record:
        """Return one record; `confirmed` as for `records`.

        Raises:
            KeyError: If this candidate was never asked for.
        """
        row = self._db.execute(f"{_SELECT_ASKS} WHERE a.candidate = ?", (candidate,)).fetchone()
        if row is None:
            raise KeyError(candidate)
        return folded(_record(row), self.observations(candidate), confirmed=confirmed)

    def confirmed_metrics(self) -> dict[str, set[str]]:
        """Return by candidate the metrics that the confirmation of the front has read."""
        rows = self._db.execute("SELECT candidate, metric FROM observations WHERE stage = ?", (CONFIRMATION,))
        confirmed: dict[str, set[str]] = {}
        for candidate, metric in rows:
            confirmed.setdefault(candidate, set()).add(metric)
        return confirmed

    def endings(self) -> list[tuple[str, int]]:
        """Return who ended, in that order, each with the number of the last candidate asked for until then."""
        rows = self._db.execute("SELECT candidate, detail FROM verdicts ORDER BY rowid")
        return [(candidate, json.loads(detail).get("last_asked", -1)) for candidate, detail in rows]

    def n_requested(self, batch: int) -> int:
        """Return how many candidates the controller was asked for when it gave `batch`."""
        row = self._db.execute("SELECT n_requested FROM batches WHERE number = ?", (batch,)).fetchone()
        return int(row[0])

    @property
    def n_asked(self) -> int:
        """How many networks were asked for, references among them."""
        (n_asked,) = self._db.execute("SELECT COUNT(*) FROM asks").fetchone()
        return int(n_asked)

    def test_readings(self) -> list[tuple[str, str, float]]:
        """Return every reading of the test split: candidate, purpose, seconds since the epoch."""
        return list(self._db.execute("SELECT candidate, purpose, taken_at FROM test_readings ORDER BY sequence"))


def _record(row: tuple[Any, ...]) -> Record:
    """Return the record of a row of `_SELECT_ASKS`, without readings."""
    number, identity, role, batch, space, genes, fingerprint, seed, description, state, attempts, detail = row
    if not is_candidate_id(identity):
        raise RunFolderError(f"the store names a candidate {shown(str(identity))[:80]!r}, which is no id of one")
    detail = json.loads(detail) if detail else {"violations": (), "failure": None, "pruning": None}
    return Record(
        candidate=Candidate(identity, Genotype(space, tuple(json.loads(genes))), fingerprint, seed, description),
        state=RecordState(state) if state else RecordState.ASKED,
        metrics={},
        number=number,
        batch=batch,
        attempts=attempts or 0,
        role=Role(role),
        violations=tuple(Violation(**violation) for violation in detail["violations"]),
        failure=Failure(**detail["failure"]) if detail["failure"] else None,
        pruning=Pruning(**detail["pruning"]) if detail["pruning"] else None,
    )
