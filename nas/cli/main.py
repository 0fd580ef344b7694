"""The command line. Exit codes: 0 done, 2 a fault in what the user gave, 1 a fault of this program's."""

import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from latency.profiling.plot import draw_memory
from nas import api, assembly
from nas.analysis import front_table, records_table, save_plots, summary_lines, to_csv, to_json
from nas.analysis.tables import format_value
from nas.cli.init import init
from nas.config import load_config
from nas.data.preparation import prepare
from nas.data.published_layouts import PUBLISHED_LAYOUTS
from nas.errors import InputError, NasError
from nas.profiling import profile as profiling
from nas.profiling import tables as profile_tables
from nas.store.run import Run

_INTERRUPTED = 130  # by convention 128 + SIGINT

app = typer.Typer(
    help="Search for networks that are good and cheap, on your task and your device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(init)

data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
analyse_app = typer.Typer(help="Look into a run: what helped, and what would have.", no_args_is_help=True)
app.add_typer(analyse_app, name="analyse")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of the run.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, e.g. runs/quickstart.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change the configuration; may be given again."),
]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="Import Python code that the configuration names.")]
FutureRunDir = Annotated[Path | None, typer.Option("--run-dir", help="The run's folder. Default: runs/NAME.")]
CandidateId = Annotated[str | None, typer.Option("--candidate", metavar="ID", help="Its id, or a unique beginning.")]


class Format(StrEnum):
    """How `nas show` prints."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command()
def search(
    config: ConfigFile,
    run_dir: FutureRunDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier start of this run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it will cost on this machine, and write nothing.")
    ] = False,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Search, and end with the Pareto front."""
    _allow_local_modules(trust_code)
    console = Console()
    if dry_run:
        costs = api.expected_costs(config, run_dir, resume=resume, overrides=overrides or (), trust_code=trust_code)
        for line in costs.lines() if costs else ["The run is finished already: nothing is left to do."]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    try:
        run = api.run_search(
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
        if what == "next" and not any((run.path / "weights").iterdir()):
            continue  # nothing was trained
        console.print(f"{what:>12}: {place}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def teacher(
    config: ConfigFile, run_dir: FutureRunDir = None, overrides: Overrides = None, trust_code: TrustCode = False
) -> None:
    """Train the teacher, if no run beside did: a search finds it there."""
    _make(api.make_teacher, "teacher", config, run_dir, overrides, trust_code)


@app.command()
def pretrain(
    config: ConfigFile, run_dir: FutureRunDir = None, overrides: Overrides = None, trust_code: TrustCode = False
) -> None:
    """Train the encoder that all candidates start from, if no run beside did: a search finds it there."""
    _make(api.pretrain, "encoder", config, run_dir, overrides, trust_code)


@app.command()
def show(
    run_dir: RunDir,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    all_records: Annotated[bool, typer.Option("--all", help="Every record, not the front alone.")] = False,
    candidate: CandidateId = None,
    drawing: Annotated[
        Path | None, typer.Option("--draw", metavar="FILE.svg", help="Draw the network of --candidate to a file.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Show a run's Pareto front, or all of its records; or draw one network."""
    if (candidate is None) != (drawing is None):
        raise InputError("give --candidate ID and --draw FILE.svg together")
    if candidate is not None and drawing is not None:
        _allow_local_modules(trust_code)
        api.draw(run_dir, candidate, drawing, trust_code=trust_code)
        print(drawing)
        return
    run = api.load_run(run_dir)
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
    run = api.load_run(run_dir)
    for path in save_plots(run, run.path / "plots"):
        print(path)


@analyse_app.command()
def predictor(
    run_dir: RunDir,
    metric: Annotated[str | None, typer.Option(help="One objective. Default: those trained for.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Of precision@k and N@k. Default: a fifth of all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Show how well predictors rank a run's candidates that they were not fitted to."""
    _allow_local_modules(trust_code)
    report = api.analyse_predictor(run_dir, metric=metric, k=k, trust_code=trust_code)
    if as_json:
        print(json.dumps(report.to_plain(), indent=2))
    else:
        Console().print(report.table(run_dir.name))


@analyse_app.command()
def curves(
    run_dir: RunDir,
    metric: Annotated[str | None, typer.Option(help="One score. Default: the first objective trained for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how well a run's final scores can be told from the first epochs of its trainings."""
    report = api.analyse_curves(run_dir, metric=metric)
    if as_json:
        print(json.dumps(report.to_plain(), indent=2))
    else:
        Console().print(report.table(run_dir.name))


@app.command()
def retrain(
    run_dir: RunDir,
    candidate: Annotated[
        str, typer.Option(metavar="ID", help="Its id, or a unique beginning; or a reference model's name.")
    ],
    epochs: Annotated[int, typer.Option(help="Of the full training.")],
    trust_code: TrustCode = False,
) -> None:
    """Train a candidate fully, then read its score on the test split."""
    _allow_local_modules(trust_code)
    console = Console()
    try:
        record = api.retrain(run_dir, candidate, epochs, trust_code=trust_code, console=console)
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
    path = api.export(run_dir, candidate, format=form, path=output, trust_code=trust_code)
    print(path)


@app.command()
def profile(
    source: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG|RUN|FILE.onnx]", help="What holds the network.")
    ] = None,
    genotype: Annotated[str | None, typer.Option(help="Of CONFIG's space: 1,2,3 or its text form.")] = None,
    candidate: CandidateId = None,
    model: Annotated[
        str | None, typer.Option(metavar="PACKAGE.MODULE:FACTORY", help="A function that makes a torch model.")
    ] = None,
    input_sizes: Annotated[
        str | None, typer.Option("--input", metavar="B,C,H,W", help="Of a model or an ONNX file; B is the batch.")
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Where to take the latency: a device of the configuration, or KIND:OPTION=VALUE,...; may be given "
            "again. Default: all of the configuration, or this CPU.",
        ),
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Fold modules deeper than this.")] = None,
    memory_plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw memory over the operators.")
    ] = None,
    breakdown: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda:N", help="Say where a process's memory goes there, in inference and training."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Show what a network costs, module by module: parameters, operations, memory, time."""
    _allow_local_modules(trust_code)
    target = _profile_target(source, genotype, candidate, model, input_sizes, overrides or [], trust_code)
    named = profiling.devices_named(devices or (), target)
    found = profiling.profile(target, named, depth=depth, breakdown_device=breakdown)
    if memory_plot is not None and found.memory is None:
        print(f"--plot: {memory_plot} was not drawn, as the network cannot be traced", file=sys.stderr)
    elif memory_plot is not None and found.memory is not None:
        try:
            draw_memory(found.memory, target.title[:60]).savefig(memory_plot, dpi=130)
        except (OSError, ValueError) as error:
            raise InputError(f"--plot: {memory_plot} cannot be written: {error}") from error
    if as_json:
        print(json.dumps(profile_tables.to_json(found), indent=2))
        return
    profile_tables.show(Console(), found)


@app.command()
def validate(
    config: ConfigFile,
    look_at_data: Annotated[bool, typer.Option("--data", help="Look at the data's files too.")] = False,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Check a configuration, and list all its faults."""
    _allow_local_modules(trust_code)
    settings = load_config(config, overrides or (), trust_code)
    assembly.check_files(settings)
    print(f"{config}: valid. Run {settings.name!r}: {len(settings.objectives)} objectives, ", end="")
    print(f"search space {settings.search_space.kind}, controller {settings.controller.kind}.")
    if look_at_data:
        assembly.check_data(settings, print)
    elif settings.data is not None:
        print("The files of the data were not looked at: --data does that.")


@data_app.command("prepare")
def prepare_data(
    layout: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(PUBLISHED_LAYOUTS)}.")],
    source: Annotated[Path, typer.Option(help="The folder as its authors publish it.")],
    output: Annotated[Path, typer.Option(help="The folder to make.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a prepared folder.")] = False,
) -> None:
    """Bring a published data set into the folders that image_mask_folder reads."""
    if layout not in PUBLISHED_LAYOUTS:
        raise InputError(f"{layout!r} is no data set that can be prepared; known: {', '.join(PUBLISHED_LAYOUTS)}")
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(layout, total=None)
        prepared = prepare(
            layout,
            source,
            output,
            overwrite=overwrite,
            on_progress=lambda n_done, n_all: progress.update(bar, completed=n_done, total=n_all),
        )
    counts = ", ".join(f"{n} {split}" for split, n in prepared.n_pairs.items())
    print(f"{prepared.path}: {counts}. For the configuration:\n\n{prepared.sections}", end="")


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


def _make(
    make: Callable[..., api.MadeNetwork],
    what: str,
    config: Path,
    run_dir: Path | None,
    overrides: list[str] | None,
    trust_code: bool,
) -> None:
    """Make a network that searches need first, and say where it is and how good."""
    _allow_local_modules(trust_code)
    console = Console()
    try:
        made = make(config, run_dir, overrides=overrides or (), trust_code=trust_code, console=console)
    except KeyboardInterrupt:
        console.print("\nStopped. Nothing of this training was kept.", markup=False)
        raise typer.Exit(_INTERRUPTED) from None
    console.print(f"{what} {made.path}: {made.n_params:,} parameters", markup=False, highlight=False, soft_wrap=True)
    for metric, value in made.scores.items():
        console.print(f"  validation {metric} {format_value(metric, value)}", markup=False, highlight=False)


def _profile_target(
    source: Path | None,
    genotype: str | None,
    candidate: str | None,
    model: str | None,
    input_sizes: str | None,
    overrides: list[str],
    trust_code: bool,
) -> profiling.Target:
    """Return what the arguments of `nas profile` name."""
    sizes = _sizes(input_sizes)
    given = {"--genotype": genotype, "--candidate": candidate, "--input": sizes, "--set": overrides}
    if (source is None) == (model is None):
        raise InputError("give one of CONFIG, RUN, FILE.onnx and --model PACKAGE.MODULE:FACTORY")
    if source is None:
        _reject_unused(given, "--model", used=("--input",))
        return profiling.model_target(str(model), sizes, trust_code)
    if not source.exists():
        raise InputError(f"there is no {source}: give a configuration, a run's folder or an ONNX file")
    if source.suffix == ".onnx":
        _reject_unused(given, "an ONNX file", used=("--input",))
        return profiling.onnx_target(source, sizes)
    if source.is_dir():
        _reject_unused(given, "a run", used=("--candidate",))
        if candidate is None:
            raise InputError(f"--candidate ID must be given for the run {source}; nas show {source} lists them")
        return profiling.run_target(source, candidate, trust_code)
    _reject_unused(given, "a configuration", used=("--genotype", "--set"))
    if genotype is None:
        raise InputError(f"--genotype must be given for the configuration {source}")
    return profiling.config_target(source, genotype, overrides, trust_code)


def _reject_unused(given: Mapping[str, object], source: str, used: Collection[str]) -> None:
    """Check that no option was given that would be ignored: its figures would be taken for what was asked."""
    for name, value in given.items():
        if value and name not in used:
            raise InputError(f"{name} has no effect with {source}: leave it out, or give what it belongs to")


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(
            f"--input must be positive sizes joined by commas, batch first, e.g. 1,3,224,224, got {text!r}"
        )
    return [int(part) for part in parts]


def _show_run(console: Console, run: Run) -> None:
    console.print(front_table(run))
    for line in summary_lines(run):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _allow_local_modules(trust_code: bool) -> None:
    """Let trusted configurations name modules in the working folder, as `python -m` would."""
    if trust_code and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
