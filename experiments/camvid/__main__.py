"""How does a network found on CamVid compare with U-Net, DeepLabV3 and ENet when one recipe trains them all?"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import nas
from experiments.common import parser, report
from nas import assembly
from nas.config import RunConfig, load_config
from nas.evaluation.stages import DeviceStage, confirm
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.records import Observation, Record

_CONFIG = Path(__file__).parents[2] / "configs" / "camvid.yaml"
_LATENCY = "latency_ms"
_MAX_PARAMS = 400_000
_POPULATION = 4  # of the cut
_N_ROUNDS = 5  # of latency measurements

_CPU_CUT = (
    "teacher.recipe.epochs=6",
    "pretraining.epochs=4",
    "training.n_threads_alone=1",
    "training.n_views=2",
    "training.stages.0.epochs=2",
    "training.stages.1.epochs=1",
    f"training.drop_rule.n_peers={_POPULATION // 2}",
    f"controller.population_size={_POPULATION}",
    "execution.n_threads=1",
)


def cut(options: argparse.Namespace) -> list[str]:
    """Return what is changed in the configuration."""
    if options.whole:
        return list(options.set)
    return [
        f"data.image_size={list(options.image_size)}",
        *_CPU_CUT,
        f"controller.n_generations={options.n_candidates // _POPULATION}",
        *options.set,
    ]


def most_accurate(run: Run) -> Record:
    """Return the member of the front with the best validation score among those that are small enough."""
    small = [record for record in run.front if record.metrics["n_params"] < _MAX_PARAMS]
    if not small:
        raise SystemExit(f"{run.path}: no candidate below {_MAX_PARAMS:,} parameters is complete")
    return max(small, key=lambda record: record.metrics["mean_iou"])


def retrained(run: Run, name: str, record: Record, epochs: int, console: Console) -> Record:
    """Return the record with its scores on the test split, which is read once, however often this is started."""
    if record.retrained_conditions.get("epochs") == epochs:
        return record
    console.print(f"Training {record.id} ({name}) for {epochs} epochs on all but the test split.", highlight=False)
    return nas.retrain(run.path, record.id, epochs, console=console)


def latencies(run: Run, records: Sequence[Record]) -> dict[str, Observation]:
    """Return the latencies by candidate, measured side by side: a search measures only its front like that."""
    config = load_config(run.path / "config.yaml")
    name, device = next(iter(config.devices.items()))
    stage = DeviceStage(name, device.instance, {_LATENCY: _LATENCY})
    with RunFolder.read(run.path) as folder:
        subjects = [assembly.stored_subject(config, folder, record.candidate) for record in records]
    return {candidate: observed[0] for candidate, observed in confirm(stage, subjects, _N_ROUNDS).items()}


def row(record: Record, latency: Observation) -> dict[str, Any]:
    """Return what the result says of one network."""
    return {
        "n_params": int(record.metrics["n_params"]),
        "n_macs": int(record.metrics["n_macs"]),
        "latency_ms": latency.value,
        "latency_ms_rounds": latency.conditions["rounds"],
        "validation_mean_iou": record.metrics["mean_iou"],
        "test_mean_iou": record.retrained["mean_iou"],
        "test_mean_accuracy": record.retrained["mean_accuracy"],
        "epochs": record.retrained_conditions["epochs"],
    }


def compare(run: Run, config: RunConfig, epochs: int, console: Console) -> dict[str, Any]:
    """Retrain what the search found and the references, and return the experiment's result."""
    found = most_accurate(run)
    chosen: Mapping[str, Record] = {"found": found} | {r.candidate.description: r for r in run.references}
    final = {name: retrained(run, name, record, epochs, console) for name, record in chosen.items()}
    measured = latencies(run, list(final.values()))
    assert config.data is not None  # noqa: S101 - the file has it
    return {
        "image_size": list(config.data.options["image_size"]),
        "states": run.counts(),
        "front": {r.id: {metric: r.metrics[metric] for metric in ("mean_iou", "n_params")} for r in run.front},
        "teacher_mean_iou": run.teacher["scores"]["mean_iou"] if run.teacher else None,
        "found": {"candidate": found.id, "description": found.candidate.description},
        "networks": {name: row(record, measured[record.id]) for name, record in final.items()},
    }


def main() -> None:
    """Search, choose on the validation split, retrain, and report."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--whole", action="store_true", help="the configuration as it stands, for a GPU")
    arguments.add_argument("--image-size", type=int, nargs=2, default=(60, 80), metavar=("HEIGHT", "WIDTH"))
    arguments.add_argument("--n-candidates", type=int, default=2 * _POPULATION, help=f"a multiple of {_POPULATION}")
    arguments.add_argument("--epochs", type=int, default=16, help="of each retraining")
    arguments.add_argument("--run-dir", type=Path, default=Path("runs/camvid_cut"), help="an unfinished run goes on")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="as in nas search")
    options = arguments.parse_args()
    if options.n_candidates < _POPULATION or options.n_candidates % _POPULATION:
        arguments.error(f"--n-candidates must be a multiple of {_POPULATION}, got {options.n_candidates}")
    console = Console(stderr=True)
    run = nas.run_search(_CONFIG, options.run_dir, resume=True, overrides=cut(options), console=console)
    config = load_config(run.path / "config.yaml")
    report(compare(run, config, options.epochs, console), options)


if __name__ == "__main__":
    main()
