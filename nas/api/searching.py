"""Run a search, new or continued, or say what it will cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from nas import assembly
from nas.config import Difference, RunConfig, differences, load_config
from nas.dry_run import CostEstimate, estimate_costs
from nas.errors import RunFolderError
from nas.listeners.console import ConsoleListener
from nas.listeners.live import PlotListener, TensorBoardListener
from nas.search.listener import SearchListener
from nas.search.loop import Search
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.records import Role

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
    """Return whether the run has reached its size or its budget, or converged, and `settings` ask for no more."""
    if not run.finished_size:
        return False
    budget = settings.budget
    is_over = budget.is_used_up(run.usage) or budget.has_converged(run.expected_gain)
    return is_over or run.finished_size >= _n_candidates(settings)


def _n_candidates(settings: RunConfig) -> int:
    return settings.controller.instance.n_candidates


def _print_finished(console: Console, run: Run) -> None:
    console.print(
        f"The run in {run.path} is finished already ({len(run.records)} candidates). To extend it, raise its size: "
        "--resume --set controller.n_generations=N (or its budget, if that ended it; or --set "
        "budget.stop_when_converged=false)",
        markup=False,
        highlight=False,
    )
