"""What is done with one candidate of a run: retrain it, draw it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from nas import assembly
from nas.config import RunConfig, load_config
from nas.errors import InputError
from nas.files import write_text
from nas.listeners.console import ConsoleListener
from nas.listeners.live import TrainingCurve
from nas.search.retraining import FullTraining, follow
from nas.search.retraining import retrain as retrain_subject
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.training.processes import Processes, joined_processes
from nas.values.recipes import EpochSummary
from nas.values.records import Record, RecordState

_LEAST_EPOCHS = 30  # of a full training where nobody says how many
_TIMES_LONGER = 10  # than the quick training


def retrain(
    run_dir: Path | str,
    candidate: str,
    epochs: int | None = None,
    *,
    n_seeds: int = 1,
    start: Literal["scratch", "quick"] = "scratch",
    patience: int | None = None,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
    console: Console | None = None,
) -> Record:
    """Train a candidate fully on all but the test split, score it on that, and return its record with both scores.

    Each epoch is kept: after an interruption the same call goes on, and ends with the same weights on a CPU. In
    processes that torch's launcher started (`torchrun`) the same call trains in all of them, each on its share of every
    batch.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or a unique prefix of it; or the name of a reference model.
        epochs: The length of a training; everything else is as in the run's recipe. By default ten times the quick
            training's epochs, and at least 30.
        n_seeds: Trainings under different seeds, whose mean scores count. The first one's weights are exported.
        start: From the weights that candidates start from in the search, or its own after its quick training.
        patience: End after as many epochs without a better validation score, and take the best weights on the way; the
            validation split is not trained on then. `None` trains on it, for all epochs.
        overrides: Of the run's configuration, such as `"data.root=/elsewhere"` for data that was moved.
        trust_code: Whether to import Python code that the run's configuration names.
        console: Where to show progress; by default nothing is shown.

    Raises:
        InputError: If there is no such run or candidate, the data is missing or has changed, or a batch cannot be
            shared out to the processes.
        EvaluationError: If the training diverges.
        MachineError: If nothing can be written, or another process has ended.
    """
    for name, value in (("epochs", epochs), ("n_seeds", n_seeds), ("patience", patience)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    path = Path(run_dir)
    with joined_processes() as processes:
        if not processes.is_first:
            follow(processes)
            return Run.load(path).find(candidate)
        record = Run.load(path).find(candidate)
        if record.state is not RecordState.COMPLETE:
            raise InputError(f"{path}: candidate {record.id} is {record.state}; only complete ones are retrained")
        settings = load_config(path / "config.yaml", overrides, trust_code)
        how = FullTraining(epochs or _full_length(settings), n_seeds, start, patience)
        return _retrain(path, record, settings, how, console or Console(quiet=True), processes)


def _retrain(
    path: Path, record: Record, settings: RunConfig, how: FullTraining, console: Console, processes: Processes
) -> Record:
    """Retrain a complete candidate; in the first process."""
    with RunFolder.write(path) as folder, ConsoleListener(console) as listener:
        if how.start == "quick" and not folder.weights(record.id, "quick").exists():
            raise InputError(f"{path}: candidate {record.id} has no weights of a quick training to start from")
        parts = assembly.retraining_parts(settings, folder, listener)
        subject = assembly.stored_subject(settings, folder, record.candidate)
        curve = TrainingCurve(path / "tensorboard", f"retraining/{record.id}") if settings.tensorboard else None

        def on_epoch(epoch: EpochSummary) -> None:
            listener.on_epoch(record.id, epoch)
            if curve is not None:
                curve.on_epoch(epoch)

        retrain_subject(parts, subject, folder, how, on_epoch=on_epoch, processes=processes)
        if curve is not None:
            curve.close(folder.store.record(record.id).retrained)
        return folder.store.record(record.id)


def follow_retraining() -> None:
    """Take part in the `retrain` of the first of the processes that torch's launcher started.

    Raises:
        EvaluationError: If the training diverges.
        MachineError: If another process has ended.
    """
    with joined_processes() as processes:
        follow(processes)


def _full_length(settings: RunConfig) -> int:
    """Return the epochs of a full training where nobody says how many."""
    n_quick = sum(stage.epochs for stage in settings.training.stages) if settings.training else 0
    return max(_LEAST_EPOCHS, _TIMES_LONGER * n_quick)


def draw(run_dir: Path | str, candidate: str, path: Path, *, trust_code: bool = False) -> None:
    """Write a drawing of a candidate's network as SVG.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or a unique prefix of it.
        path: The file to write.
        trust_code: Whether to import Python code that the run's configuration names.

    Raises:
        InputError: If there is no such run or candidate, or the file cannot be written.
    """
    run = Run.load(run_dir)
    found = run.find(candidate).candidate
    settings = load_config(run.path / "config.yaml", trust_code=trust_code)
    try:
        write_text(path, assembly.space_of(settings, found).draw(found.genotype))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error
