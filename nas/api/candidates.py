"""What is done with one candidate of a run: retrain it, export it, draw it."""

from pathlib import Path

from rich.console import Console

from nas import assembly
from nas.config import load_config
from nas.data.normalization import Normalization
from nas.errors import InputError
from nas.exporters import EXPORTERS
from nas.files import write_text
from nas.listeners.console import ConsoleListener
from nas.search.retraining import retrain as retrain_subject
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.records import Record, RecordState


def retrain(
    run_dir: Path | str,
    candidate: str,
    epochs: int,
    *,
    trust_code: bool = False,
    console: Console | None = None,
) -> Record:
    """Train a candidate fully on all but the test split, score it on that, and return its record with both scores.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or a unique prefix of it; or the name of a reference model.
        epochs: The length of the training; everything else is as in the run's recipe.
        trust_code: Whether to import Python code that the run's configuration names.
        console: Where to show progress; by default nothing is shown.

    Raises:
        InputError: If there is no such run or candidate, or the data is missing or has changed.
        EvaluationError: If the training diverges.
    """
    if epochs < 1:
        raise InputError(f"epochs must be at least 1, got {epochs}")
    path = Path(run_dir)
    record = Run.load(path).find(candidate)
    if record.state is not RecordState.COMPLETE:
        raise InputError(f"{path}: candidate {record.id} is {record.state}; only complete ones are retrained")
    settings = load_config(path / "config.yaml", trust_code=trust_code)
    with RunFolder.write(path) as folder, ConsoleListener(console or Console(quiet=True)) as listener:
        parts = assembly.retraining_parts(settings, folder, listener)
        subject = assembly.stored_subject(settings, folder, record.candidate)
        retrain_subject(
            parts,
            subject,
            folder,
            epochs=epochs,
            on_epoch=lambda epoch: listener.on_epoch(record.id, epoch),
        )
        return folder.store.record(record.id)


def export(
    run_dir: Path | str,
    candidate: str | None = None,
    *,
    format: str = "onnx",
    path: Path | None = None,
    trust_code: bool = False,
) -> Path:
    """Write a candidate's network to a file, with its retrained weights if there are any, else the quick ones.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or a unique prefix of it; by default the front's knee.
        format: A key of `EXPORTERS`.
        path: The file to write; by default in the run's folder under `exports/`.
        trust_code: Whether to import Python code that the run's configuration names.

    Returns:
        The file's path.

    Raises:
        InputError: If there is no such run or candidate, or it was never trained.
        ExportError: If the exported network's outputs differ from the trained one's; no file is left then.
    """
    if format not in EXPORTERS:
        raise InputError(f"format must be one of {', '.join(EXPORTERS)}, got {format!r}")
    run = Run.load(run_dir)
    record = run.knee if candidate is None else run.find(candidate)
    settings = load_config(run.path / "config.yaml", trust_code=trust_code)
    with RunFolder.read(run.path) as folder:
        training = next((t for t in ("retrained", "quick") if folder.weights(record.id, t).exists()), None)
        if training is None:
            raise InputError(f"{run.path}: candidate {record.id} ({record.state}) has no trained weights to export")
        subject = assembly.stored_subject(settings, folder, record.candidate)
        assert subject.signature is not None  # noqa: S101 - stored_subject gives one
        assembly.load_candidate(subject.model, folder, record.id, training)
        target = path or run.path / "exports" / f"{record.id}.{training}.{format}"
        try:
            EXPORTERS[format](
                subject.model.eval(),
                target,
                signature=subject.signature,
                normalization=Normalization.from_values(**folder.store.fact("normalization")),
                class_names=folder.store.fact("class_names"),
                metadata={"candidate": record.id, "network": record.candidate.description, "training": training},
            )
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error}") from error
    return target


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
