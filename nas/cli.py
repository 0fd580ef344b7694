"""The command line. Exit codes: 0 done, 2 a fault in what the user gave, 1 a fault of this program's."""

import os
import shlex
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nas import runner
from nas.analysis import front_table, records_table, save_plots, summary_lines, to_csv, to_json
from nas.analysis.run import Run
from nas.analysis.tables import format_value
from nas.config import load_config
from nas.errors import InputError, NasError

_INTERRUPTED = 130  # by convention 128 + SIGINT

app = typer.Typer(
    help="Search for networks that are good and cheap, on your task and your device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of the run.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, e.g. runs/quickstart.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change the configuration; may be given again."),
]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="Import Python code that the configuration names.")]
CandidateId = Annotated[str | None, typer.Option("--candidate", metavar="ID", help="Its id, or a unique beginning.")]


class Format(StrEnum):
    """How `nas show` prints."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command()
def search(
    config: ConfigFile,
    run_dir: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier start of this run.")] = False,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Search, and end with the Pareto front."""
    _allow_local_modules(trust_code)
    console = Console()
    try:
        run = runner.run_search(
            config,
            run_dir,
            resume=resume,
            overrides=overrides or (),
            trust_code=trust_code,
            console=console,
        )
    except KeyboardInterrupt:
        again = ["nas", "search", str(config), *(["--run-dir", str(run_dir)] if run_dir else [])]
        again += [part for override in overrides or () for part in ("--set", override)]
        again += [*(["--trust-code"] if trust_code else []), "--resume"]
        console.print("\nStopped. Everything that was computed is stored. To go on:", markup=False)
        console.print(f"  {shlex.join(again)}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(_INTERRUPTED) from None
    _show_run(console, run)
    for what, place in (
        ("records", run.path / "store.sqlite"),
        ("plots", run.path / "plots"),
        ("TensorBoard", f"tensorboard --logdir {run.path / 'tensorboard'}"),
        ("next", f"nas retrain {run.path} --candidate ID --epochs N; nas export {run.path} --knee"),
    ):
        console.print(f"{what:>12}: {place}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def show(
    run_dir: RunDir,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    all_records: Annotated[bool, typer.Option("--all", help="Every record, not the front alone.")] = False,
) -> None:
    """Show a run's Pareto front, or all of its records."""
    run = runner.load_run(run_dir)
    if form is Format.JSON:
        print(to_json(run, all_records=all_records))
    elif form is Format.CSV:
        print(to_csv(run, all_records=all_records), end="")
    elif all_records:
        console = Console()
        console.print(records_table(run))
        for line in summary_lines(run):
            console.print(line, markup=False, highlight=False)
    else:
        _show_run(Console(), run)


@app.command()
def plot(run_dir: RunDir) -> None:
    """Draw a run's figures again: each pair of objectives, and the hypervolume."""
    run = runner.load_run(run_dir)
    for path in save_plots(run, run.path / "plots"):
        print(path)


@app.command()
def retrain(
    run_dir: RunDir,
    candidate: Annotated[str, typer.Option(metavar="ID", help="Its id, or a unique beginning.")],
    epochs: Annotated[int, typer.Option(help="Of the full training.")],
    trust_code: TrustCode = False,
) -> None:
    """Train a candidate fully, then read its score on the test split."""
    _allow_local_modules(trust_code)
    console = Console()
    try:
        record = runner.retrain(run_dir, candidate, epochs, trust_code=trust_code, console=console)
    except KeyboardInterrupt:
        console.print("\nStopped. Nothing of this training was kept.", markup=False)
        raise typer.Exit(_INTERRUPTED) from None
    console.print(f"{record.id}: {record.candidate.description}", markup=False, highlight=False)
    for metric, value in record.retrained.items():
        quick = record.metrics.get(metric)
        beside = f"   (validation after quick training: {format_value(metric, quick)})" if quick is not None else ""
        console.print(f"  test {metric} {format_value(metric, value)}{beside}", markup=False, highlight=False)


@app.command()
def export(
    run_dir: RunDir,
    candidate: CandidateId = None,
    knee: Annotated[bool, typer.Option("--knee", help="The front's member nearest to its ideal point.")] = False,
    form: Annotated[str, typer.Option("--format", help="What to write.")] = "onnx",
    output: Annotated[Path | None, typer.Option(help="The file. Default: in the run's folder.")] = None,
    trust_code: TrustCode = False,
) -> None:
    """Write a candidate's network to a file, checked against the trained one."""
    if knee == (candidate is not None):
        raise InputError("give either --candidate ID or --knee")
    _allow_local_modules(trust_code)
    path = runner.export(run_dir, candidate, format=form, path=output, trust_code=trust_code)
    print(path)


@app.command()
def validate(config: ConfigFile, overrides: Overrides = None, trust_code: TrustCode = False) -> None:
    """Check a configuration, and list all its faults."""
    _allow_local_modules(trust_code)
    settings = load_config(config, overrides or (), trust_code)
    print(f"{config}: valid. Run {settings.name!r}: {len(settings.objectives)} objectives, ", end="")
    print(f"search space {settings.search_space.kind}, controller {settings.controller.kind}.")


def main() -> None:
    """Run the command line; the entry point of `nas`."""
    try:
        app()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except NasError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away; nothing is wrong
    except Exception:  # noqa: BLE001 - the last place where a fault of ours can be told apart from the user's
        traceback.print_exc()
        sys.exit(1)


def _show_run(console: Console, run: Run) -> None:
    console.print(front_table(run))
    for line in summary_lines(run):
        console.print(line, markup=False, highlight=False)


def _allow_local_modules(trust_code: bool) -> None:
    """Let trusted configurations name modules in the working folder, as `python -m` would."""
    if trust_code and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
