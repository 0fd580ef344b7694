"""What can be learnt of a run as a whole: how well its scores can be predicted, what tells against it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.analysis.comparison import Comparison
from nas.analysis.curves import CurveReport
from nas.analysis.predictor import PredictorReport
from nas.config import load_config
from nas.config.yaml_source import YamlSource
from nas.doctor.diagnoses import Diagnosis, Evidence
from nas.doctor.diagnoses import diagnose as diagnoses
from nas.errors import InputError
from nas.reporting import write_comparison, write_report
from nas.store.run import Run


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


def diagnose(run_dir: Path | str) -> list[Diagnosis]:
    """Return what a run's records tell against it: see `nas.doctor.diagnoses`. It may be running meanwhile.

    Args:
        run_dir: The run's folder.

    Raises:
        InputError: If there is no such run.
    """
    return diagnoses(Evidence.load(Path(run_dir)))


def report(
    run_dir: Path | str, path: Path | None = None, *, trust_code: bool = False, refresh_s: float | None = None
) -> Path:
    """Write a run's report, one HTML file that opens in any browser, and return its path: see `write_report`."""
    return write_report(Path(run_dir), path, trust_code=trust_code, refresh_s=refresh_s)


def compare(run_dirs: Sequence[Path | str], *, by: str | None = None, path: Path | None = None) -> Comparison:
    """Return runs of the same objectives side by side.

    Args:
        run_dirs: Their folders.
        by: A key of the configuration, such as `controller` or `training.epochs`: runs with the same value are one
            group. `None`: each is a group of its own.
        path: An HTML file to write as well; `None` for none.

    Raises:
        InputError: If there are fewer than two, one is no run, their objectives differ, or one lacks the key.
    """
    runs = [Run.load(run_dir) for run_dir in run_dirs]
    comparison = Comparison.of(runs, [str(run.path) if by is None else _label(run, by) for run in runs])
    if path is not None:
        write_comparison(comparison, path)
    return comparison


def _label(run: Run, key: str) -> str:
    """Return what a run's configuration says under a key; of a section its kind."""
    value: Any = YamlSource.read(run.path / "config.yaml").data
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"{run.path / 'config.yaml'} has no key {key!r}: --by takes one, such as controller")
        value = value[part]
    return str(value.get("kind", value) if isinstance(value, dict) else value)
