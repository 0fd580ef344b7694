"""One record whole: as plain values, and as lines for a terminal."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from nas.analysis.tables import format_value
from nas.store.run import Run
from nas.store.run_folder import weights_path
from nas.values.records import Failure, Record

_TRAININGS = ("quick", "retrained")
_FULL_TRAINING = 30  # epochs in the command that is shown; the user's to change
_CONDITIONS_FIRST = ("device", "runtime", "precision", "batch_size", "n_threads")


def record_values(run: Run, record: Record, *, trust_code: bool = False) -> dict[str, Any]:
    """Return all that a run's folder holds of a record, as plain JSON values.

    Args:
        run: Where it is from.
        record: One of the run's, or of its references.
        trust_code: Whether the commands shown trust the code that the configuration names.
    """
    front = {member.id for member in run.front}
    return {
        "candidate": record.id,
        "state": str(record.state),
        "reason": record.reason,
        "role": str(record.role),
        "batch": record.batch,
        "attempts": record.attempts,
        "on_front": record.id in front,
        "is_knee": record.id in front and run.knee.id == record.id,
        "tied_with": list(run.ties().get(record.id, ())),
        "seed": record.candidate.seed,
        "fingerprint": record.candidate.fingerprint,
        "genotype": list(record.candidate.genotype.genes),
        "description": record.candidate.description,
        "metrics": {metric: _reading(run, record, metric) for metric in record.metrics},
        "epoch_losses": list(record.epoch_losses),
        "retrained": {
            "metrics": dict(record.retrained),
            "conditions": dict(record.retrained_conditions),
            "spread": dict(record.retrained_spread),
        },
        "violations": [str(violation) for violation in record.violations],
        "failure": asdict(record.failure) if record.failure else None,
        "pruning": asdict(record.pruning) if record.pruning else None,
        "earlier_failures": [asdict(failure) for failure in record.earlier_failures],
        "weights": _weights(run, record),
        "commands": _commands(run, record, trust_code),
    }


def _reading(run: Run, record: Record, metric: str) -> dict[str, Any]:
    return {
        "value": run.plain_value(metric, record.metrics[metric]),
        "spread": record.spread(metric),
        "conditions": dict(record.conditions.get(metric, {})),
    }


def _weights(run: Run, record: Record) -> dict[str, str]:
    """Return by training the files of weights that are there."""
    files = {training: weights_path(run.path, record.id, training) for training in _TRAININGS}
    return {training: str(file) for training, file in files.items() if file.exists()}


def _commands(run: Run, record: Record, trust_code: bool) -> dict[str, str]:
    """Return the commands that can be given for a record, by their names."""
    if not run.builds_networks:
        return {}
    options = {"profile": ""}
    if record.is_complete:
        options["retrain"] = f" --epochs {_FULL_TRAINING}"
    if _weights(run, record):
        options["export"] = ""
    trust = " --trust-code" if trust_code else ""
    path = shlex.quote(str(run.path))
    return {
        name: f"nas {name} {path} --candidate {record.id}{options[name]}{trust}"
        for name in ("retrain", "export", "profile")
        if name in options
    }


def record_lines(run: Run, record: Record, *, trust_code: bool = False) -> Iterator[str]:
    """Yield the same as lines for people, without the costs by module."""
    values = record_values(run, record, trust_code=trust_code)
    marks = ["on the front"] * values["on_front"] + ["the knee"] * values["is_knee"]
    marks += [f"tied with {', '.join(values['tied_with'])}"] * bool(values["tied_with"])
    yield f"{record.role} {record.id} of {run.name}: {', '.join([values['state'], *marks])}"
    if record.reason:
        yield f"  reason    {record.reason}"
    yield f"  network   {record.candidate.description}"
    yield f"  genotype  {','.join(map(str, record.candidate.genotype.genes))}"
    attempts = "1 attempt" if record.attempts == 1 else f"{record.attempts} attempts"
    yield f"  asked in batch {record.batch}; {attempts}; seed {record.candidate.seed}"
    for metric, value in record.metrics.items():
        yield from _metric_lines(metric, _text(run, metric, value), values["metrics"][metric])
    for metric, value in record.retrained.items():
        spread = f" ± {record.retrained_spread[metric]:.2g}" if metric in record.retrained_spread else ""
        yield f"test {metric}  {_text(run, metric, value)}{spread}"
    if record.retrained:
        yield f"  {_conditions_text(record.retrained_conditions)}"
    if record.epoch_losses:
        yield f"loss by epoch  {', '.join(f'{loss:.4g}' for loss in record.epoch_losses)}"
    for failure in (*record.earlier_failures, *([record.failure] if record.failure else [])):
        yield from _failure_lines(failure)
    for training, file in values["weights"].items():
        yield f"weights ({training})  {file}"
    yield from values["commands"].values()


def _text(run: Run, metric: str, value: float) -> str:
    units = {objective.metric: objective.unit for objective in run.objectives}
    return format_value(metric, value, units.get(metric, ""))


def _metric_lines(metric: str, text: str, reading: Mapping[str, Any]) -> Iterator[str]:
    spread = "" if reading["spread"] is None else f" ± {reading['spread']:.2g}"
    yield f"{metric}  {text}{spread}"
    if reading["conditions"]:
        yield f"  {_conditions_text(reading['conditions'])}"


def _conditions_text(conditions: Mapping[str, Any]) -> str:
    """Return conditions in one line, those first that people compare."""
    first = [key for key in _CONDITIONS_FIRST if key in conditions]
    names = [*first, *(key for key in conditions if key not in first)]
    return ", ".join(f"{name} {conditions[name]}" for name in names)


def _failure_lines(failure: Failure) -> Iterator[str]:
    yield f"failed in {failure.stage}: {failure.reason}"
    yield from (f"  {line}" for line in failure.traceback.splitlines())
