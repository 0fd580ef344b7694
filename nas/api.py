"""What can be done with a run, in one call each: search, load, retrain, export. The command line calls these."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file

from nas import assembly
from nas.analysis.curves import CurveReport
from nas.analysis.predictor import PredictorReport
from nas.config import Difference, RunConfig, differences, load_config
from nas.dry_run import CostEstimate, estimate_costs
from nas.errors import InputError, RunFolderError
from nas.export import EXPORTERS
from nas.files import write_text
from nas.listeners.console import ConsoleListener
from nas.listeners.live import PlotListener, TensorBoardListener
from nas.search.listener import SearchListener
from nas.search.loop import Search
from nas.search.retraining import retrain as retrain_subject
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.torch_tools import load_weights, weights_metadata
from nas.values.records import Record, RecordState

_CHANGEABLE = (
    "controller.n_generations",
    "controller.n_candidates",
    "budget",
    "execution",
    "tensorboard",
)
"""Keys that a resumed run may change, or all beneath them: none changes what an earlier record means."""

_FIXED = "execution.n_threads"  # a training's result depends on its threads


def run_search(
    config: Path | str | Mapping[str, Any],
    run_dir: Path | str | None = None,
    *,
    resume: bool = False,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
    console: Console | None = None,
) -> Run:
    """Search, from a configuration to a finished run; a run that is finished already is returned at once.

    Args:
        config: A YAML file, or a mapping of the same shape.
        run_dir: The run's folder; by default `runs/NAME`.
        resume: Go on with an unfinished run, or with a finished one whose size `overrides` raise. Starts from
            the beginning if there is nothing to go on with.
        overrides: Changes of the configuration such as `"controller.n_generations=20"`.
        trust_code: Whether Python code that the configuration names may be imported.
        console: Where to show progress; nothing is shown by default.

    Raises:
        InputError: A fault in the configuration, the data or the folder, before anything expensive starts.
        KeyboardInterrupt: Passed on; everything up to it is stored.
    """
    settings = load_config(config, overrides, trust_code)
    path = Path(run_dir) if run_dir is not None else Path("runs") / settings.name
    console = console or Console(quiet=True)
    with RunFolder.write(path) as folder:
        if folder.has_begun:
            _check_same_run(folder, settings, resume=resume, trust_code=trust_code)
            run = Run.of(folder)
            if _is_finished(run, settings):
                _say_finished(console, run)
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
    """Return what `run_search` with these arguments would cost on this machine from now on; nothing is written.

    `None` for a run that is finished already.

    Raises:
        InputError: As `run_search` does, and if no sampled candidate can be evaluated.
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
class MadeNetwork:
    """A network that the candidates of a run need made first.

    Attributes:
        path: Its file.
        scores: On the validation split, by metric; an encoder's under the light decoder of its training.
        n_params: Trained numbers.
    """

    path: Path
    scores: Mapping[str, float]
    n_params: int


def make_teacher(
    config: Path | str | Mapping[str, Any], run_dir: Path | str | None = None, **options: Any
) -> MadeNetwork:
    """Return the teacher that a search with this configuration would learn from, trained now if nobody did before.

    Args:
        config: As for `run_search`.
        run_dir: Likewise; the run itself is not touched.
        options: `overrides`, `trust_code` and `console`, likewise.

    Raises:
        InputError: If the configuration has no teacher, or the data or its file is not to be had or does not fit.
        EvaluationError: If its training diverges.
    """
    with _preparation(config, run_dir, **options) as (settings, folder, listener):
        teacher = assembly.make_run_teacher(settings, folder, listener)
    return MadeNetwork(teacher.weights, teacher.scores, teacher.n_params)


def pretrain(config: Path | str | Mapping[str, Any], run_dir: Path | str | None = None, **options: Any) -> MadeNetwork:
    """Return the encoder that all candidates of a search would start from, trained now if nobody did before.

    Arguments as for `make_teacher`. A teacher that it learns from is made first.

    Raises:
        InputError: If the configuration has no pretraining, or the data or a file is not to be had or does not fit.
        EvaluationError: If a training diverges.
    """
    with _preparation(config, run_dir, **options) as (settings, folder, listener):
        weights = assembly.make_run_encoder(settings, folder, listener)
    tensors = load_file(weights)
    n_params = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith((".weight", ".bias")))
    return MadeNetwork(weights, json.loads(weights_metadata(weights).get("scores", "{}")), n_params)


@contextlib.contextmanager
def _preparation(
    config: Path | str | Mapping[str, Any],
    run_dir: Path | str | None,
    *,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
    console: Console | None = None,
) -> Iterator[tuple[RunConfig, RunFolder, SearchListener]]:
    """Yield what it takes to make something for runs that are not there yet.

    What is made lies beside all runs; a folder that is thrown away stands in for the run.
    """
    settings = load_config(config, overrides, trust_code)
    beside = (Path(run_dir) if run_dir is not None else Path("runs") / settings.name).parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=beside, prefix=".preparation-")
    except OSError as error:
        raise InputError(f"{beside}: nothing can be written here: {error}") from error
    with (
        scratch,
        RunFolder.write(Path(scratch.name)) as folder,
        ConsoleListener(console or Console(quiet=True)) as listener,
    ):
        yield settings, folder, listener


def load_run(run_dir: Path | str) -> Run:
    """Return a run as it stands, from its folder alone.

    Raises:
        RunFolderError: If there is none.
    """
    return Run.load(run_dir)


def retrain(
    run_dir: Path | str,
    candidate: str,
    epochs: int,
    *,
    trust_code: bool = False,
    console: Console | None = None,
) -> Record:
    """Train a candidate fully, on all but the test split, score it there, and return its record with both scores.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or as much of its beginning as is unique; or the name of a reference model.
        epochs: Of the training; everything else is as in the run's recipe.
        trust_code: Whether Python code that the run's configuration names may be imported.
        console: Where to show progress; nothing is shown by default.

    Raises:
        InputError: If there is no such run or candidate, or the data is not there or is other data now.
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
        candidate: Its id, or a unique beginning; by default the front's knee.
        format: A name in `EXPORTERS`.
        path: The file; by default in the run's folder under `exports/`.
        trust_code: Whether Python code that the run's configuration names may be imported.

    Returns:
        The file.

    Raises:
        InputError: If there is no such run or candidate, or it was never trained.
        ExportError: If the file would not compute what the network does; there is none then.
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
        load_weights(subject.model, folder.weights(record.id, training))
        target = path or run.path / "exports" / f"{record.id}.{training}.{format}"
        try:
            EXPORTERS[format](
                subject.model.eval(),
                target,
                signature=subject.signature,
                normalization=assembly.stored_normalization(folder),
                class_names=folder.store.fact("class_names"),
                metadata={"candidate": record.id, "network": record.candidate.description, "training": training},
            )
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error}") from error
    return target


def draw(run_dir: Path | str, candidate: str, path: Path, *, trust_code: bool = False) -> None:
    """Write an SVG of a candidate's network.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or a unique beginning.
        path: The file.
        trust_code: Whether Python code that the run's configuration names may be imported.

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
    """Return how well predictors of trained metrics would have done in a run.

    Args:
        run_dir: The run's folder.
        metric: One objective; by default all that only an evaluation tells.
        k: Of precision@k and n@k; by default a fifth of the records.
        trust_code: Whether Python code that the run's configuration names may be imported.

    Raises:
        InputError: If there is no such run or objective, or the run is too small.
    """
    run = Run.load(run_dir)
    space = load_config(run.path / "config.yaml", trust_code=trust_code).search_space.instance
    return PredictorReport.of(run, space, metric=metric, k=k)


def analyse_curves(run_dir: Path | str, *, metric: str | None = None) -> CurveReport:
    """Return how early in a run's trainings their final scores could have been told.

    Args:
        run_dir: The run's folder.
        metric: The score; by default the first objective that networks are trained for.

    Raises:
        InputError: If there is no such run or score, or too few trainings with curves.
    """
    return CurveReport.of(Run.load(run_dir), metric=metric)


def _check_same_run(folder: RunFolder, settings: RunConfig, *, resume: bool, trust_code: bool) -> None:
    """Refuse to go on with a run whose configuration was another, or to start one over."""
    path = folder.path
    stored = load_config(path / "config.yaml", trust_code=trust_code)
    changed = differences(stored, settings)
    fixed = [change for change in changed if not (resume and _is_changeable(change))]
    if fixed:
        shown = "\n".join(f"  {change}" for change in fixed)
        advice = (
            f"a resumed run may change only {', '.join(_CHANGEABLE)} (but {_FIXED})"
            if resume
            else "choose another --run-dir, or pass --resume to go on with what may change"
        )
        raise RunFolderError(f"{path} holds a run with another configuration; {advice}:\n{shown}")
    if not resume and not _is_finished(Run.of(folder), settings):
        raise RunFolderError(f"{path} holds an unfinished run; pass --resume to go on, or choose another --run-dir")


def _is_changeable(change: Difference) -> bool:
    return change.key != _FIXED and any(f"{change.key}.".startswith(f"{key}.") for key in _CHANGEABLE)


def _is_finished(run: Run, settings: RunConfig) -> bool:
    """Return whether the run came to its end, by its size or by its budget, and `settings` raise neither."""
    if not run.finished_size:
        return False
    return run.finished_size >= _n_candidates(settings) or settings.budget.is_used_up(run.usage)


def _n_candidates(settings: RunConfig) -> int:
    return settings.controller.instance.n_candidates


def _say_finished(console: Console, run: Run) -> None:
    console.print(
        f"The run in {run.path} is finished already ({len(run.records)} candidates). To go on, raise its size: "
        "--resume --set controller.n_generations=N (or its budget, where that ended it)",
        markup=False,
        highlight=False,
    )
