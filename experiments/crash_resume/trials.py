"""What is killed: runs of commands, and what must stand in their folders at the end."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nas.store.run import Run
from nas.values.records import Record

_CONFIGURATION = "run.yaml"
RUN = Path("runs") / "trial"
_ARTIFACTS = (".npy", ".safetensors")

_DATA = {"kind": "synthetic_faces", "image_size": 32, "n_train": 16, "n_validation": 8}
_SPACE = {"kind": "segmentation_cell", "n_cells": 1, "n_branches": 2}

_FAKE: dict[str, Any] = {
    "name": "trial",
    "data": _DATA,
    "search_space": _SPACE,
    "devices": {"phone": {"kind": "fake", "spread": 0.1}},
    "metrics": {"score": {"function": "experiments.crash_resume.functions:score"}},
    "objectives": [
        {"metric": "score", "direction": "maximize"},
        {"metric": "latency_ms", "device": "phone", "direction": "minimize"},
    ],
    "constraints": [{"metric": "n_params", "max": 300_000}],
    "controller": {"kind": "nsga2", "population_size": 8, "n_generations": 6},
    "tensorboard": False,
}

_REAL: dict[str, Any] = {
    "name": "trial",
    "data": _DATA,
    "teacher": {"kind": "unet", "width": 4, "recipe": {"epochs": 4, "batch_size": 8}},
    "search_space": _SPACE,
    "pretraining": {"epochs": 4, "batch_size": 8},
    "training": {"device": "cpu", "epochs": 3, "batch_size": 8},
    "devices": {"phone": {"kind": "fake", "spread": 0.1}},
    "objectives": [
        {"metric": "mean_iou", "direction": "maximize"},
        {"metric": "latency_ms", "device": "phone", "direction": "minimize"},
    ],
    "controller": {"kind": "nsga2", "population_size": 4, "n_generations": 3},
    "tensorboard": False,
}

_SEARCH = ("search", _CONFIGURATION, "--trust-code", "--resume")


@dataclass(frozen=True)
class Trial:
    """Commands that follow each other in one folder, each killed until it ends by itself.

    Attributes:
        name: Tells them apart.
        configuration: Of the run.
        commands: Arguments of `nas`; `CANDIDATE` stands for the best network.
        is_real: Whether networks are trained.
    """

    name: str
    configuration: Mapping[str, Any]
    commands: tuple[tuple[str, ...], ...]
    is_real: bool = False

    def prepare(self, folder: Path) -> None:
        """Write the configuration."""
        folder.mkdir(parents=True)
        (folder / _CONFIGURATION).write_text(yaml.safe_dump(dict(self.configuration)), encoding="utf-8")


_POOL = {"kind": "process_pool", "n_workers": 2}
_AFTERWARDS = (
    ("retrain", str(RUN), "--candidate", "CANDIDATE", "--epochs", "3"),
    ("export", str(RUN), "--candidate", "CANDIDATE"),
    ("plot", str(RUN)),
)

TRIALS = (
    Trial("serial", _FAKE, (_SEARCH,)),
    Trial("pool", {**_FAKE, "execution": _POOL}, (_SEARCH,)),
    Trial("steady", {**_FAKE, "scheduling": "steady_state"}, (_SEARCH,)),
    Trial("training", _REAL, (("teacher", _CONFIGURATION), ("pretrain", _CONFIGURATION), _SEARCH, *_AFTERWARDS), True),
    Trial("training_in_pool", {**_REAL, "execution": _POOL}, (_SEARCH, *_AFTERWARDS), True),
)


def best(folder: Path) -> str:
    """Return the id of the first network on the front."""
    return Run.load(folder / RUN).front[0].id


def outcome(folder: Path) -> dict[str, Any]:
    """Return all that a finished trial must share with an uninterrupted one, as plain values."""
    run = Run.load(folder / RUN)
    kept = [path for name in ("weights", "exports") for path in sorted((folder / RUN / name).glob("[!.]*"))]
    made = [
        path for path in sorted((folder / "runs" / "artifacts").glob("*")) if path.suffix in (".npy", ".safetensors")
    ]
    return {
        "records": [_facts(record) for record in (*run.records, *run.references)],
        "front": [record.id for record in run.front],
        "finished_size": run.finished_size,
        "reference_point": run.reference_point,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (*kept, *made)},
    }


def ended(folder: Path) -> dict[str, Any]:
    """Return by candidate what is stored of those that have ended; nothing while there is no store."""
    if not (folder / RUN / "store.sqlite").exists():
        return {}
    return {record.id: _facts(record) for record in Run.load(folder / RUN).records if record.state != "asked"}


def leftovers(folder: Path) -> list[str]:
    """Return the files that a finished trial should not have left."""
    files: Sequence[Path] = [path for path in folder.rglob("*") if path.is_file()]
    hidden = [path for path in files if path.name.startswith(".") and path.name != ".lock"]
    journals = [path for path in files if path.name.endswith(("-wal", "-shm", "-journal"))]
    scratch = [path for path in folder.rglob(".preparation-*") if path.is_dir()]
    return sorted(str(path.relative_to(folder)) for path in (*hidden, *journals, *scratch))


def _facts(record: Record) -> dict[str, Any]:
    """Return a record without what an interruption may change: attempts, and the readings of the confirmation."""
    return {
        "id": record.id,
        "genes": list(record.candidate.genotype.genes),
        "state": str(record.state),
        "batch": record.batch,
        "metrics": {metric: float(value).hex() for metric, value in sorted(record.metrics.items())},
        "epoch_losses": [float(loss).hex() for loss in record.epoch_losses],
        "retrained": {metric: float(value).hex() for metric, value in sorted(record.retrained.items())},
    }
