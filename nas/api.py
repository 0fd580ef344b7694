"""What the command line and Python code call: search, retrain, export and analyse a run, each in one function."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nas import assembly
from nas.analysis.curves import CurveReport
from nas.analysis.predictor import PredictorReport
from nas.config import Difference, RunConfig, differences, load_config
from nas.data.normalization import Normalization
from nas.dry_run import CostEstimate, estimate_costs
from nas.errors import InputError, RunFolderError
from nas.exporters import EXPORTERS
from nas.files import temporary_name, write_text
from nas.listeners.console import ConsoleListener
from nas.listeners.live import PlotListener, TensorBoardListener
from nas.search.listener import SearchListener
from nas.search.loop import Search
from nas.search.retraining import retrain as retrain_subject
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.torch_tools import read_weights, weights_metadata
from nas.values.records import Record, RecordState, Role

_CHANGEABLE = (
    "controller.n_generations",
    "controller.n_candidates",
    "budget",
    "execution",
    "tensorboard",
)
"""Keys, with all below them, that a resumed run may change: earlier records stay valid."""

_FIXED = "execution.n_threads"  # below `execution`, but results of a training depend on it


def run_search(
    config: Path | str | Mapping[str, Any],
    run_dir: Path | str | None = None,
    *,
    resume: bool = False,
    retry_failed: str | None = None,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
    console: Console | None = None,
) -> Run:
    """Run the search of a configuration and return the finished run; one finished before is returned at once.

    Args:
        config: A YAML file, or a mapping of the same shape.
        run_dir: The run's folder; by default `runs/NAME`.
        resume: Continue an unfinished run, or extend a finished one whose size or budget `overrides` raise. Starts a
            new run if there is none.
        retry_failed: Continue a run, and ask anew for those of its failed candidates whose failure was in the stage of
            this name, or says this text; for all of them if it is empty. `None` lets them be.
        overrides: Overridden keys of the configuration, such as `"controller.n_generations=20"`.
        trust_code: Whether to import Python code that the configuration names.
        console: Where to show progress; by default nothing is shown.

    Raises:
        InputError: If configuration, data or folder are faulty; raised before anything expensive starts.
        MachineError: If disk, files or memory failed; everything computed so far is stored, and once the cause is
            mended `resume` goes on.
        KeyboardInterrupt: Re-raised; everything computed so far is stored.
    """
    settings = load_config(config, overrides, trust_code)
    path = Path(run_dir) if run_dir is not None else Path("runs") / settings.name
    console = console or Console(quiet=True)
    with RunFolder.write(path) as folder:
        if folder.has_begun:
            resume = resume or retry_failed is not None
            _check_same_run(folder, settings, resume=resume, trust_code=trust_code)
            if retry_failed is not None:
                _ask_anew(folder, retry_failed, console)
            run = Run.of(folder)
            if _is_finished(run, settings):
                _print_finished(console, run)
                return run
        else:
            folder.start_over()
        folder.set_configuration(settings.to_yaml())
        with ConsoleListener(console) as listener:
            assembly.prepare_folder(settings, folder)
            parts = assembly.search_parts(settings, folder, listener)
            live: list[SearchListener] = [PlotListener()]
            if settings.tensorboard:
                live.append(TensorBoardListener())
            Search(parts, folder, [listener, *live]).run()
        return Run.of(folder)


def expected_costs(
    config: Path | str | Mapping[str, Any],
    run_dir: Path | str | None = None,
    *,
    resume: bool = False,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> CostEstimate | None:
    """Return the remaining cost of `run_search` with these arguments on this machine; nothing is written.

    `None` for a finished run.

    Raises:
        InputError: As by `run_search`, and if no sampled candidate can be evaluated.
    """
    settings = load_config(config, overrides, trust_code)
    path = Path(run_dir) if run_dir is not None else Path("runs") / settings.name
    run = None
    if RunFolder.exists(path):
        with RunFolder.read(path) as folder:
            if folder.has_begun:
                _check_same_run(folder, settings, resume=resume, trust_code=trust_code)
                run = Run.of(folder)
    if run is not None and _is_finished(run, settings):
        return None
    return estimate_costs(settings, path.parent, run)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network trained for the candidates of a run: their teacher, or their pretrained encoder.

    Attributes:
        path: The file of its weights.
        scores: On the validation split, by metric; an encoder is scored with the light decoder it was trained with.
        n_params: The number of trained parameters.
    """

    path: Path
    scores: Mapping[str, float]
    n_params: int


def make_teacher(
    config: Path | str | Mapping[str, Any], run_dir: Path | str | None = None, **options: Any
) -> TrainedNetwork:
    """Return the teacher of a configuration, trained now unless a run in the same folder has trained it.

    Args:
        config: As for `run_search`.
        run_dir: As for `run_search`; only the artifacts beside this folder are written.
        options: `overrides`, `trust_code` and `console`, as for `run_search`.

    Raises:
        InputError: If the configuration has no teacher, or the data or the teacher's file is missing or does not fit.
        EvaluationError: If the training diverges.
    """
    with _preparation(config, run_dir, **options) as (settings, folder, listener):
        weights, report = assembly.make_run_teacher(settings, folder, listener)
    return TrainedNetwork(weights, report.scores, report.n_params)


def pretrain(
    config: Path | str | Mapping[str, Any], run_dir: Path | str | None = None, **options: Any
) -> TrainedNetwork:
    """Return the pretrained encoder of a configuration, trained now unless a run in the same folder has trained it.

    Arguments as for `make_teacher`. If the encoder is distilled from a teacher, that is trained before it.

    Raises:
        InputError: If the configuration has no pretraining, or the data or a file is missing or does not fit.
        EvaluationError: If a training diverges.
    """
    with _preparation(config, run_dir, **options) as (settings, folder, listener):
        weights = assembly.make_run_encoder(settings, folder, listener)
    tensors = read_weights(weights)
    n_params = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith((".weight", ".bias")))
    return TrainedNetwork(weights, json.loads(weights_metadata(weights).get("scores", "{}")), n_params)


@contextlib.contextmanager
def _preparation(
    config: Path | str | Mapping[str, Any],
    run_dir: Path | str | None,
    *,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
    console: Console | None = None,
) -> Iterator[tuple[RunConfig, RunFolder, SearchListener]]:
    """Yield configuration, run folder and listener for a training whose result several runs share.

    The run folder is a temporary one: only the shared artifacts beside it outlive the training.
    """
    settings = load_config(config, overrides, trust_code)
    beside = (Path(run_dir) if run_dir is not None else Path("runs") / settings.name).parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=beside, prefix=f"{temporary_name('preparation')}.")
    except OSError as error:
        raise InputError(f"{beside} cannot be written: {error}") from error
    with (
        scratch,
        RunFolder.write(Path(scratch.name)) as folder,
        ConsoleListener(console or Console(quiet=True)) as listener,
    ):
        yield settings, folder, listener


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


def analyse_predictor(
    run_dir: Path | str, *, metric: str | None = None, k: int | None = None, trust_code: bool = False
) -> PredictorReport:
    """Return the cross-validated quality of the predictors of trained metrics on a run's candidates.

    Args:
        run_dir: The run's folder.
        metric: The objective to predict; by default all that are unknown before training.
        k: The k of precision@k and n@k; by default a fifth of the records.
        trust_code: Whether to import Python code that the run's configuration names.

    Raises:
        InputError: If there is no such run or objective, or the run is too small.
    """
    run = Run.load(run_dir)
    space = load_config(run.path / "config.yaml", trust_code=trust_code).search_space.instance
    return PredictorReport.of(run, space, metric=metric, k=k)


def analyse_curves(run_dir: Path | str, *, metric: str | None = None) -> CurveReport:
    """Return the cross-validated quality of predicting a run's final scores from the first epochs of each training.

    Args:
        run_dir: The run's folder.
        metric: The score to predict; by default the first objective that needs training.

    Raises:
        InputError: If there is no such run or score, or too few trainings with curves.
    """
    return CurveReport.of(Run.load(run_dir), metric=metric)


def _check_same_run(folder: RunFolder, settings: RunConfig, *, resume: bool, trust_code: bool) -> None:
    """Refuse to continue a run under another configuration, or an unfinished run without `resume`."""
    path = folder.path
    stored = load_config(path / "config.yaml", trust_code=trust_code)
    changed = differences(stored, settings)
    fixed = [change for change in changed if not (resume and _is_changeable(change))]
    if fixed:
        shown = "\n".join(f"  {change}" for change in fixed)
        advice = (
            f"a resumed run may change only {', '.join(_CHANGEABLE)} (but {_FIXED})"
            if resume
            else "choose another --run-dir, or pass --resume to go on with the changes that it allows"
        )
        raise RunFolderError(f"{path} holds a run with another configuration; {advice}:\n{shown}")
    if not resume and not _is_finished(Run.of(folder), settings):
        raise RunFolderError(f"{path} holds an unfinished run; pass --resume to continue, or choose another --run-dir")


def _ask_anew(folder: RunFolder, cause: str, console: Console) -> None:
    """Take back the verdicts on candidates and references that failed by `cause`."""
    records = [record for role in Role for record in folder.store.records(role=role)]
    failures = [(record, record.failure) for record in records if record.failure is not None]
    failed = [r for r, f in failures if cause == f.stage or cause.lower() in f.reason.lower()]
    if failed:
        folder.store.set_fact("finished_size", 0)
        folder.store.reopen(failed)
    others = f", {len(failures) - len(failed)} others failed otherwise" if len(failed) < len(failures) else ""
    said = f"Asking anew for {len(failed)} candidates that failed{f' by {cause!r}' if cause else ''}{others}."
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def _is_changeable(change: Difference) -> bool:
    return change.key != _FIXED and any(f"{change.key}.".startswith(f"{key}.") for key in _CHANGEABLE)


def _is_finished(run: Run, settings: RunConfig) -> bool:
    """Return whether the run has reached its size or its budget, and `settings` raise neither."""
    if not run.finished_size:
        return False
    return run.finished_size >= _n_candidates(settings) or settings.budget.is_used_up(run.usage)


def _n_candidates(settings: RunConfig) -> int:
    return settings.controller.instance.n_candidates


def _print_finished(console: Console, run: Run) -> None:
    console.print(
        f"The run in {run.path} is finished already ({len(run.records)} candidates). To extend it, raise its size: "
        "--resume --set controller.n_generations=N (or its budget, if that ended it)",
        markup=False,
        highlight=False,
    )
