"""The application: all commands, and the exit codes.

0 done; 2 the user's fault; 1 the machine's or this program's; 130, 143, 129 stopped by Ctrl-C, SIGTERM, SIGHUP.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nas.cli.analyse import curves, predictor
from nas.cli.bundles import bench, bundle, evaluate, predict
from nas.cli.data import prepare
from nas.cli.doctor import doctor
from nas.cli.init import init
from nas.cli.latency import collect, fit, serve
from nas.cli.latency import evaluate as evaluate_readings
from nas.cli.networks import export, retrain
from nas.cli.overview import compare, diagnose, report, runs, watch
from nas.cli.profile import profile
from nas.cli.runs import plot, show
from nas.cli.schema import schema
from nas.cli.search import pretrain, search, teacher, validate, with_empty_cause
from nas.cli.signals import StopSignals
from nas.errors import InputError, NasError
from nas.faults import is_machine_fault, machine_error
from nas.values.shown_text import shown
from nas.version import VERSION

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
_SEARCHING = (init, search, teacher, pretrain, show, plot, retrain)
_LOOKING = (report, watch, diagnose, compare, runs)
_TAKING_AWAY = (export, bundle, predict, bench, evaluate)
_KNOWING = (profile, validate, schema, doctor)
_COMMANDS: tuple[Callable[..., Any], ...] = (*_SEARCHING, *_LOOKING, *_TAKING_AWAY, *_KNOWING)
for command in _COMMANDS:
    app.command()(command)

data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True)
data_app.command()(prepare)
app.add_typer(data_app, name="data")

latency_app = typer.Typer(help="Learn a device's latencies from a few readings.", no_args_is_help=True)
latency_app.command()(collect)
latency_app.command()(fit)
latency_app.command()(serve)
latency_app.command("evaluate")(evaluate_readings)
app.add_typer(latency_app, name="latency")

analyse_app = typer.Typer(help="Measure how well a run's scores can be predicted.", no_args_is_help=True)
for command in (predictor, curves):
    analyse_app.command()(command)
app.add_typer(analyse_app, name="analyse")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pareto-nas {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search for accurate and cheap networks, for your task and your device."""


def main() -> None:
    """Run the command line; the entry point of `nas`."""
    signals = StopSignals()
    try:
        with signals:
            app(args=with_empty_cause(sys.argv[1:]))
    except BaseException as error:  # noqa: BLE001 - the last place where anything can be told apart
        if signals.number is not None:
            signals.leave()  # whatever else failed on the way out
        _exit_for(error)


def _exit_for(error: BaseException) -> None:
    """Print what `error` says, and exit with its code."""
    match error:
        case InputError():
            print(shown(str(error), in_lines=True), file=sys.stderr)
            sys.exit(2)
        case NasError():
            print(shown(str(error), in_lines=True), file=sys.stderr)
            sys.exit(1)
        case BrokenPipeError():
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # the reader of a pipe has closed it: no fault
        case Exception() if is_machine_fault(error):
            print(shown(str(machine_error("The command cannot go on", error)), in_lines=True), file=sys.stderr)
            sys.exit(1)
        case Exception():
            traceback.print_exception(error)
            sys.exit(1)
        case _:
            raise error
