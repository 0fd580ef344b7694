"""Arguments that several commands take, and what they do alike."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.cli.signals import Stopped
from nas.errors import InputError, MachineError
from nas.values.shown_text import shown

if TYPE_CHECKING:
    from nas.store.run import Run

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
    str | None,
    typer.Option("--candidate", metavar="ID", help="A candidate's id, or its start; a reference's name."),
]
CandidateOrTeacher = Annotated[
    str | None,
    typer.Option("--candidate", metavar="ID", help="A candidate's id, or its start; a reference's name; or 'teacher'."),
]
Knee = Annotated[bool, typer.Option("--knee", help="Take the knee: the front's member nearest to its ideal point.")]
Prefer = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Take what is best of the front by your words: 'mean_iou >= 0.6, min latency_ms'."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the full report as JSON.")]


def print_text(console: Console, text: str) -> None:
    """Print `text` of any origin: no control characters, markup, colours for numbers or line breaks inside paths."""
    console.print(shown(text, in_lines=True), markup=False, highlight=False, soft_wrap=True)


def chosen_candidate(
    run_dir: Path, candidate: str | None, knee: bool, prefer: str | None, *, or_teacher: bool = False
) -> str:
    """Return the id of the network that the options name; in a terminal one picked from a list where they name none.

    Says on the error output what was taken and why, unless the user gave the id.

    Args:
        run_dir: The run's folder.
        candidate: An id, a unique prefix of one, or a name.
        knee: Whether the knee is asked for.
        prefer: A preference in words.
        or_teacher: Whether `teacher` names the run's teacher.

    Raises:
        InputError: If the options name no network, or several.
    """
    from nas.analysis.choice import chosen
    from nas.store.run import load_run

    run = load_run(run_dir)
    if or_teacher and candidate == "teacher" and not knee and prefer is None:
        return candidate
    if candidate is None and not knee and prefer is None and sys.stdin.isatty() and sys.stdout.isatty():
        return _picked(run)
    choice = chosen(run, candidate, is_knee=knee, prefer=prefer)
    if candidate is None:
        print_text(Console(stderr=True), f"{choice.record.id} taken: {choice.reason}")
    return choice.record.id


def _picked(run: "Run") -> str:
    """Show the front and let the user type a line's id."""
    from nas.analysis.tables import front_table

    if not run.front:
        raise InputError(f"{run.path}: {run.why_empty()}")
    Console(stderr=True).print(front_table(run))
    return run.find(typer.prompt("Which candidate (its id, or the start of it)", default=run.knee.id, err=True)).id


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
