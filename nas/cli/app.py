"""The application: all commands, and the exit codes: 0 done, 2 the user's fault, 1 a fault of this program."""

import os
import sys
import traceback
from typing import Annotated

import typer

from nas.cli.analyse import curves, predictor
from nas.cli.data import prepare
from nas.cli.doctor import doctor
from nas.cli.init import init
from nas.cli.networks import export, retrain
from nas.cli.profile import profile
from nas.cli.runs import plot, show
from nas.cli.schema import schema
from nas.cli.search import pretrain, search, teacher, validate
from nas.errors import InputError, NasError
from nas.values.shown_text import shown
from nas.version import VERSION

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
for command in (init, search, teacher, pretrain, show, plot, retrain, export, profile, validate, schema, doctor):
    app.command()(command)

data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True)
data_app.command()(prepare)
app.add_typer(data_app, name="data")

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
    try:
        app()
    except InputError as error:
        print(shown(str(error), in_lines=True), file=sys.stderr)
        sys.exit(2)
    except NasError as error:
        print(shown(str(error), in_lines=True), file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe has closed it: no fault
    except Exception:  # noqa: BLE001 - the last place where a bug can be told apart from the user's fault
        traceback.print_exc()
        sys.exit(1)
