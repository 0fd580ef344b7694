"""The rows of a store as values, each checked: a damaged file may hold anything."""

import json
import math
from typing import Any

from nas.store.damage import DETAIL, FAILURE, NUMBER, check_shape
from nas.values.objectives import Violation
from nas.values.records import Candidate, Failure, Observation, Pruning, Record, RecordState, Role, is_candidate_id
from nas.values.shown_text import shown
from search_spaces.genotype import Genotype

SELECT_ASKS = (
    "SELECT a.number, a.candidate, a.role, a.batch, a.space, a.genes, a.fingerprint, a.seed, a.description,"
    " v.state, v.attempts, v.detail FROM asks a LEFT JOIN verdicts v USING (candidate)"
)
SELECT_OBSERVATIONS = "SELECT candidate, stage, attempt, metric, value, conditions FROM observations"
_TYPES = (str, str, int, str, float, str)
_CONDITIONS = {
    "rounds": ("the repeated readings", [NUMBER]),
    "undisturbed_ms": ("the undisturbed part of a reading", (NUMBER, None)),
    "spread": ("the spread of a reading", (NUMBER, None)),
}


def observation_of(row: tuple[Any, ...]) -> Observation:
    """Return the reading of a row of `SELECT_OBSERVATIONS`.

    Raises:
        Exception: If it is damaged, of whatever kind.
    """
    candidate, stage, attempt, metric, value, conditions = row
    if tuple(map(type, row)) != _TYPES or not math.isfinite(value):  # the usual row passes at once: there are many
        check_shape("a reading", [attempt, value], [NUMBER])
        check_shape("a reading", [candidate, stage, metric], [str])
    conditions = json.loads(conditions) if conditions != "{}" else {}
    check_shape("the conditions of a reading", conditions, {str: object})
    for key, (what, shape) in _CONDITIONS.items():
        if key in conditions:
            check_shape(what, conditions[key], shape)
    return Observation(candidate, stage, attempt, metric, value, conditions)


def record_of(row: tuple[Any, ...]) -> Record:
    """Return the record of a row of `SELECT_ASKS`, without readings.

    Raises:
        Exception: If it is damaged, of whatever kind.
    """
    number, identity, role, batch, space, genes, fingerprint, seed, description, state, attempts, detail = row
    check_shape("a candidate", [number, batch, seed, attempts or 0], [int])
    check_shape("a candidate", [identity, space, fingerprint, description], [str])
    if not is_candidate_id(identity):
        raise ValueError(f"a candidate is called {shown(identity)[:80]!r}, which is no id of one")
    genes = json.loads(genes)
    check_shape("a candidate's genes", genes, [int])
    detail = json.loads(detail) if detail else {"violations": [], "failure": None, "pruning": None}
    check_shape("a verdict", detail, DETAIL)
    earlier = detail.get("earlier_failures", [])
    check_shape("earlier failures", earlier, [FAILURE])
    return Record(
        candidate=Candidate(identity, Genotype(space, tuple(genes)), fingerprint, seed, description),
        state=RecordState(state) if state else RecordState.ASKED,
        metrics={},
        number=number,
        batch=batch,
        attempts=attempts or 0,
        role=Role(role),
        violations=tuple(Violation(**violation) for violation in detail["violations"]),
        failure=Failure(**detail["failure"]) if detail["failure"] else None,
        pruning=Pruning(**detail["pruning"]) if detail["pruning"] else None,
        earlier_failures=tuple(Failure(**failure) for failure in earlier),
    )
