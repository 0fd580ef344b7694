"""Commands that show a run: show, plot. They need its folder alone, and start without torch."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.cli.candidate import Format, show_record
from nas.cli.common import (
    CandidateId,
    Knee,
    Prefer,
    RunDir,
    TrustCode,
    allow_local_modules,
    chosen_candidate,
    print_text,
)
from nas.errors import InputError

if TYPE_CHECKING:
    from nas.store.run import Run


class PlotStyle(StrEnum):
    """What figures are made for."""

    SCREEN = "screen"
    PAPER = "paper"


class PlotFormat(StrEnum):
    """Formats of figures."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


def show(
    run_dir: RunDir,
    form: Annotated[Format, typer.Option("--format", help="The output format.")] = Format.TABLE,
    all_records: Annotated[bool, typer.Option("--all", help="Show every record, not only the front.")] = False,
    candidate: CandidateId = None,
    knee: Knee = False,
    prefer: Prefer = None,
    drawing: Annotated[
        Path | None, typer.Option("--draw", metavar="FILE.svg", help="Draw the network of --candidate to a file.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Show a run's Pareto front, or all of its records; or one record whole, or a drawing of its network."""
    from nas.store.run import load_run

    is_one = candidate is not None or knee or prefer is not None
    if drawing is not None and not is_one:
        raise InputError("--draw needs --candidate ID, --knee or --prefer: the network to draw")
    if is_one and all_records:
        raise InputError("--all shows every record and --candidate one: leave one of them out")
    if not is_one:
        _print_run(load_run(run_dir), form, all_records)
        return
    chosen = chosen_candidate(run_dir, candidate, knee, prefer)
    if drawing is not None:
        _draw(run_dir, chosen, drawing, trust_code)
    else:
        show_record(load_run(run_dir), chosen, form, trust_code)


def plot(
    run_dir: RunDir,
    style: Annotated[PlotStyle, typer.Option(help="For a screen, or for a column of a paper.")] = PlotStyle.SCREEN,
    form: Annotated[PlotFormat, typer.Option("--format", help="Of the files.")] = PlotFormat.PNG,
    width: Annotated[float | None, typer.Option(min=1.0, metavar="INCHES", help="Default: 7.2; paper 3.5.")] = None,
    font_size: Annotated[float | None, typer.Option(min=3.0, metavar="PT", help="Default: 10; paper 8.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: plots/ in the run's folder.")] = None,
) -> None:
    """Redraw a run's figures: each pair of objectives, and the hypervolume; for papers with their data as CSV."""
    import dataclasses

    from nas.analysis.plots import PAPER, SCREEN, save_plots
    from nas.store.run import load_run

    run = load_run(run_dir)
    chosen = PAPER if style is PlotStyle.PAPER else SCREEN
    chosen = dataclasses.replace(
        chosen, form=form.value, width_in=width or chosen.width_in, font_pt=font_size or chosen.font_pt
    )
    for path in save_plots(run, out or run.path / "plots", chosen):
        print(path)


def print_front(console: Console, run: "Run") -> None:
    """Print a run's front as a table, and the summary below it."""
    from nas.analysis.tables import front_table, summary_lines

    console.print(front_table(run))
    for line in summary_lines(run):
        print_text(console, line)


def _print_run(run: "Run", form: Format, all_records: bool) -> None:
    from nas.analysis.tables import records_table, summary_lines, to_csv, to_json

    if form is Format.JSON:
        print(to_json(run, all_records=all_records))
    elif form is Format.CSV:
        print(to_csv(run, all_records=all_records), end="")
    elif all_records:
        console = Console()
        console.print(records_table(run))
        for line in summary_lines(run):
            print_text(console, line)
    else:
        print_front(Console(), run)


def _draw(run_dir: Path, candidate: str, drawing: Path, trust_code: bool) -> None:
    from nas import api

    allow_local_modules(trust_code)
    api.draw(run_dir, candidate, drawing, trust_code=trust_code)
    print(drawing)
