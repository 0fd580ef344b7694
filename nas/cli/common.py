"""Arguments that several commands take, and what they do alike."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nas.cli.signals import Stopped
from nas.errors import MachineError
from nas.values.shown_text import shown

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of the run.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, e.g. runs/quickstart.")]
FutureRunDir = Annotated[Path | None, typer.Option("--run-dir", help="The run's folder. Default: runs/NAME.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the configuration; repeatable."),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Allow importing the Python code that the configuration names.")
]
CandidateId = Annotated[
    str | None, typer.Option("--candidate", metavar="ID", help="The candidate's id, or a unique prefix of it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the full report as JSON.")]


def print_text(console: Console, text: str) -> None:
    """Print `text` of any origin: no control characters, markup, colours for numbers or line breaks inside paths."""
    console.print(shown(text, in_lines=True), markup=False, highlight=False, soft_wrap=True)


def allow_local_modules(trust_code: bool) -> None:
    """Let a trusted configuration name modules in the working folder, as `python -m` would."""
    if trust_code and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


@contextlib.contextmanager
def saying_how_to_go_on(console: Console, message: str) -> Iterator[None]:
    """Print `message` when the command is stopped, or ends by a fault of the machine."""
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        with contextlib.suppress(OSError):  # the terminal may be gone
            print_text(console, f"\nStopped. {message}")
        raise
    except MachineError:
        print_text(console, f"Stopped by a fault of the machine. {message}")
        raise
