"""What a report shows of a run, as plain values in columns: the page's scripts draw it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nas.analysis.tables import summary_lines
from nas.doctor.diagnoses import Evidence, batch_distances, diagnose
from nas.search.convergence import expected_gain
from nas.store.folding import CONFIRMATION
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.metrics import metric_info
from nas.values.records import Observation, Record

_N_NEXT = 50  # candidates
_N_FAILURES = 20  # causes
_N_WORKERS = 16  # shown by name
_N_HEAT_ROWS = 60  # gene values that are shown by batch
_MIN_CORRELATED = 5  # candidates
_MOST_CORRELATED = 8  # metrics
_CONDITIONS = ("device", "processor", "runtime", "precision", "n_threads", "batch_size", "epochs")


def contents(folder: RunFolder, evidence: Evidence) -> dict[str, Any]:
    """Return all that a report shows but drawings and costs by module.

    Args:
        folder: Of the run, open.
        evidence: Of the same run.
    """
    run = evidence.run
    everyone = [*run.references, *run.records]
    return {
        "name": run.name,
        "path": str(run.path),
        "state": run.state,
        "summary": [*summary_lines(run), *_outlook(run)],
        "objectives": [asdict(objective) for objective in run.objectives],
        "constraints": [asdict(constraint) for constraint in run.constraints],
        "teacher": run.teacher,
        "reference_point": dict(run.reference_point or {}),
        "units": _units(run, everyone),
        "builds_networks": run.builds_networks,
        "candidates": _columns(run, everyone),
        "progress": _progress(run, folder),
        "failures": _failures(run.records),
        "trust": _trust(run, everyone, evidence.readings),
        "diversity": _diversity(run),
        "diagnoses": [asdict(diagnosis) for diagnosis in diagnose(evidence)],
    }


def _outlook(run: Run) -> Iterator[str]:
    """Yield what going on can be expected to bring."""
    gain = expected_gain(run.hypervolumes(), _N_NEXT)
    if gain is not None:
        yield f"The next {_N_NEXT} candidates can be expected to add {100 * gain:.2g} % of the hypervolume."


def _units(run: Run, records: Sequence[Record]) -> dict[str, str]:
    """Return the unit of each metric."""
    units = {metric: info.unit if (info := metric_info(metric)) else "" for r in records for metric in r.metrics}
    return units | {objective.metric: objective.unit for objective in run.objectives}


def _columns(run: Run, records: Sequence[Record]) -> dict[str, Any]:
    """Return records in columns, references first; `None` where a record lacks a value."""
    front = {record.id for record in run.front}
    metrics = list(dict.fromkeys(metric for record in records for metric in record.metrics))
    tested = list(dict.fromkeys(metric for record in records for metric in record.retrained))
    spread = {metric: [record.spread(metric) for record in records] for metric in metrics}
    return {
        "id": [record.id for record in records],
        "state": [str(record.state) for record in records],
        "is_reference": [record.number < 0 or record.batch < 0 for record in records],
        "batch": [record.batch for record in records],
        "on_front": [record.id in front for record in records],
        "knee": run.knee.id if front else None,
        "ties": {name: list(others) for name, others in run.ties().items()},
        "description": [record.candidate.description for record in records],
        "reason": [record.reason for record in records],
        "metrics": {metric: [run.plain_value(metric, r.metrics.get(metric)) for r in records] for metric in metrics},
        "spread": {metric: values for metric, values in spread.items() if any(v is not None for v in values)},
        "rounds": _rounds(records),
        "tested": {metric: [record.retrained.get(metric) for record in records] for metric in tested},
        "losses": [[round(loss, 5) for loss in record.epoch_losses] for record in records],
        "conditions": _conditions(records),
    }


def _rounds(records: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
    """Return by record and metric the smallest and the largest of repeated readings."""
    found: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for metric, conditions in record.conditions.items():
            if rounds := conditions.get("rounds"):
                found.setdefault(record.id, {})[metric] = [min(rounds), max(rounds)]
    return found


def _conditions(records: Sequence[Record]) -> dict[str, str]:
    """Return by metric what its readings have in common, in words."""
    texts = {}
    for metric in dict.fromkeys(metric for record in records for metric in record.conditions):
        known = [record.conditions[metric] for record in records if metric in record.conditions]
        shared = {key: known[0].get(key) for key in _CONDITIONS if len({str(one.get(key)) for one in known}) == 1}
        texts[metric] = ", ".join(f"{key} {value}" for key, value in shared.items() if value is not None)
    return {metric: text for metric, text in texts.items() if text}


def _progress(run: Run, folder: RunFolder) -> dict[str, Any]:
    """Return hypervolume over evaluations and time, best values by batch, and where the time went."""
    times = folder.store.times()
    start = min((asked for asked, _ in times.values()), default=0.0)
    ends = {name: (end or asked) - start for name, (asked, end) in times.items()}
    ended = run.ended
    by_end = sorted(ended, key=lambda record: ends[record.id])
    volumes = dataclasses.replace(run, records=tuple(by_end)).hypervolumes()
    last = float(volumes[-1]) if len(volumes) and volumes[-1] > 0 else 1.0
    return {
        "hypervolume": [round(float(volume) / last, 5) for volume in volumes],
        "ended_s": [round(ends[record.id], 1) for record in by_end],
        "batches": [_batch(run, number, list(batch)) for number, batch in groupby(ended, key=lambda r: r.batch)],
        "seconds": _seconds(folder, times),
        "busy_s": _busiest(folder.store.fact("busy_s") or {}),
        "hours": (folder.store.fact("usage") or {}).get("hours", 0.0),
        "planned_size": run.planned_size,
    }


def _batch(run: Run, number: int, records: Sequence[Record]) -> dict[str, Any]:
    """Return by objective the lowest, median and highest value of a batch."""
    values: dict[str, list[float]] = {}
    for objective in run.objectives:
        known = [record.metrics[objective.metric] for record in records if objective.metric in record.metrics]
        if known:
            values[objective.metric] = [min(known), float(np.median(known)), max(known)]
    return {"number": number, "n": len(records), "values": values}


def _seconds(folder: RunFolder, times: Mapping[str, tuple[float, float | None]]) -> dict[str, float]:
    """Return by stage the seconds of all candidates between its reading and what came before it.

    The first reading of a candidate counts as `waiting`: it may have waited for others of its batch.
    """
    before = {name: asked for name, (asked, _) in times.items()}
    met: set[str] = set()
    seconds: dict[str, float] = {}
    for name, stage, taken in folder.store.reading_times():
        if stage != CONFIRMATION and name in before:
            part = stage.replace("#", ": ") if name in met else "waiting"
            seconds[part] = seconds.get(part, 0.0) + max(0.0, taken - before[name])
            before[name] = taken
            met.add(name)
    return {stage: round(total, 2) for stage, total in seconds.items() if total >= 0.01}


def _busiest(busy_s: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of the busiest workers, and of all others together."""
    ordered = sorted(busy_s.items(), key=lambda item: -item[1])
    found = dict(ordered[:_N_WORKERS])
    if others := ordered[_N_WORKERS:]:
        found[f"{len(others)} others"] = sum(seconds for _, seconds in others)
    return {name: round(seconds, 2) for name, seconds in found.items() if seconds >= 0.01}


def _failures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return failures by cause, the most frequent first, each with one traceback."""
    causes: dict[str, list[Record]] = {}
    for record in records:
        if record.failure:
            causes.setdefault(str(record.reason), []).append(record)
    ordered = sorted(causes.items(), key=lambda item: -len(item[1]))[:_N_FAILURES]
    return [
        {"cause": cause, "candidates": [r.id for r in failed], "traceback": failed[0].failure.traceback}
        for cause, failed in ordered
        if failed[0].failure
    ]


def _trust(run: Run, records: Sequence[Record], readings: Sequence[Observation]) -> dict[str, Any]:
    """Return pairs of values that ought to agree; a panel without data is empty."""
    tested = [
        {"id": record.id, "metric": metric, "quick": record.metrics[metric], "tested": value}
        for record in records
        for metric, value in record.retrained.items()
        if metric in record.metrics and metric in {objective.metric for objective in run.objectives}
    ]
    spread = [
        {"id": record.id, "metric": o.metric, "value": record.metrics[o.metric], "spread": record.spread(o.metric)}
        for record in records
        for o in run.objectives
        if record.spread(o.metric) is not None
    ]
    return {
        "tested": tested,
        "spread": spread,
        "confirmed": _confirmed(readings),
        "correlation": _correlation(run),
    }


def _confirmed(readings: Sequence[Observation]) -> list[dict[str, Any]]:
    """Return the first and the confirmed reading of each metric that was read again."""
    first: dict[tuple[str, str], float] = {}
    again: dict[tuple[str, str], float] = {}
    for reading in readings:
        key = (reading.candidate, reading.metric)
        if reading.stage == CONFIRMATION and key in first:
            again[key] = reading.value
        first.setdefault(key, reading.value)
    return [
        {"id": key[0], "metric": key[1], "first": first[key], "confirmed": value}
        for key, value in again.items()
        if first[key] != value
    ]


def _correlation(run: Run) -> dict[str, Any]:
    """Return Spearman's rho of each pair of metrics over complete records, with their number."""
    complete = [record for record in run.records if record.is_complete]
    if len(complete) < _MIN_CORRELATED:
        return {}
    objectives = [objective.metric for objective in run.objectives]
    others = [name for name in complete[0].metrics if name not in objectives and "[" not in name]
    names = [n for n in (*objectives, *others) if all(n in record.metrics for record in complete)][:_MOST_CORRELATED]
    values = np.array([[record.metrics[name] for name in names] for record in complete])
    varied = [i for i in range(len(names)) if np.ptp(values[:, i]) > 0]
    if len(varied) < 2:
        return {}
    rho = np.atleast_2d(spearmanr(values[:, varied]).statistic)
    if rho.shape == (1, 1):
        rho = np.array([[1.0, rho[0, 0]], [rho[0, 0], 1.0]])
    return {"names": [names[i] for i in varied], "rho": rho.round(3).tolist(), "n": len(complete)}


def _diversity(run: Run) -> dict[str, Any]:
    """Return distances within batches, distinct sizes so far, and how often each gene's value occurs by batch."""
    sizes: set[float] = set()
    distinct = []
    for record in run.records:
        if "n_params" in record.metrics:
            sizes.add(record.metrics["n_params"])
            distinct.append(len(sizes))
    return {
        "distances": [[number, round(distance, 4)] for number, distance in batch_distances(run.records)],
        "distinct_sizes": distinct,
        "genes": _gene_shares(run.records),
    }


def _gene_shares(records: Sequence[Record]) -> dict[str, Any]:
    """Return the share of each gene's value in each batch: of those values whose share varies most."""
    lengths = {len(record.candidate.genotype.genes) for record in records}
    if len(lengths) != 1 or lengths == {0}:
        return {}
    batches = [(number, list(batch)) for number, batch in groupby(records, key=lambda record: record.batch)]
    shares: dict[tuple[int, int], list[float]] = {}
    for column, (_, batch) in enumerate(batches):
        genes = np.array([record.candidate.genotype.genes for record in batch])
        for gene in range(genes.shape[1]):
            for value, n in zip(*np.unique(genes[:, gene], return_counts=True), strict=True):
                shares.setdefault((gene, int(value)), [0.0] * len(batches))[column] = round(float(n) / len(batch), 3)
    rows = sorted(shares, key=lambda key: -float(np.var(shares[key])))[:_N_HEAT_ROWS]
    return {
        "batches": [number for number, _ in batches],
        "rows": [f"gene {gene} = {value}" for gene, value in sorted(rows)],
        "shares": [shares[key] for key in sorted(rows)],
    }
