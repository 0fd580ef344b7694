"""Commands that look at runs from afar: runs, diagnose, report, compare, watch."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from nas.cli.common import AsJson, RunDir, TrustCode, allow_local_modules, print_text
from nas.errors import InputError


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="A folder of runs, or one run. Default: runs.")
    ] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder: state, age, size of the front, best scores, disk space."""
    from nas.analysis.overview import look_at_runs, overview_table

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; nas search makes runs/ where it is started")
    found = look_at_runs(folder)
    if as_json:
        print(json.dumps([one.to_plain() for one in found], indent=2))
    elif found:
        Console().print(overview_table(found))
    else:
        print(f"{folder} holds no runs.")


def diagnose(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Say what a run's records tell against it: metric, bound, space or recipe that mislead it, and what to try."""
    import dataclasses

    from nas import api

    found = api.diagnose(run_dir)
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
        return
    console = Console()
    for one in found:
        console.print(f"[bold]{one.name}[/bold]", highlight=False)
        for line in (one.text, one.evidence, one.advice):
            print_text(console, f"  {line}")
    if not found:
        print_text(console, "Nothing of what is looked for was found: nas doctor RUN checks the files.")


def report(
    run_dir: RunDir,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: report.html in the run's folder.")
    ] = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Write it again and again while the search runs; open pages follow.")
    ] = False,
    interval: Annotated[float, typer.Option(min=2.0, metavar="SECONDS", help="Between two writings.")] = 30.0,
    trust_code: TrustCode = False,
) -> None:
    """Write one page that shows front, trust, progress and diversity of a run; it opens in any browser, offline."""
    from nas import api
    from nas.store.run_folder import RunFolder

    allow_local_modules(trust_code)
    while watching and RunFolder.is_in_use(run_dir):
        print(api.report(run_dir, output, trust_code=trust_code, refresh_s=interval), flush=True)
        time.sleep(interval)
    print(api.report(run_dir, output, trust_code=trust_code))


def compare(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs with the same objectives.")
    ],
    by: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="A key of the configuration, such as controller: the same value, one group."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Also write it as a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: hypervolume with one reference point, who dominates whom, whether it is more than seeds."""
    from nas import api

    found = api.compare(run_dirs, by=by, path=output)
    if as_json:
        print(json.dumps(found.to_plain(), indent=2))
        return
    console = Console()
    console.print(found.table())
    for line in found.lines():
        print_text(console, line)
    if output is not None:
        print_text(console, f"page: {output}")


def watch(
    run_dir: RunDir,
    interval: Annotated[float, typer.Option(min=0.5, metavar="SECONDS", help="Between two looks.")] = 5.0,
) -> None:
    """Show a run while another process searches: front, pace, time left, last failures; Ctrl-C ends the view alone."""
    from nas.analysis.watching import Watch

    console, watching = Console(), Watch(run_dir)
    view = watching.look()
    if not console.is_terminal:
        console.print(view.shown)
        return
    with Live(view.shown, console=console, auto_refresh=False, screen=False) as live:
        while view.is_running:
            time.sleep(interval)
            view = watching.look()
            live.update(view.shown, refresh=True)
