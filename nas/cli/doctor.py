"""The command `nas doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.cli.common import print_text

if TYPE_CHECKING:
    from nas.doctor.findings import Finding


def doctor(
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="The folder of a run whose files are to be checked.")
    ] = None,
    scan: Annotated[
        bool, typer.Option("--scan", help="Also compute gradients of all kinds of convolutions: a minute or two.")
    ] = False,
) -> None:
    """Show what works on this machine and, for a run, whether its files are whole; exit code 1 if something is not."""
    from nas.doctor.findings import Health
    from nas.doctor.machine import look_at_machine, scan_gradients
    from nas.doctor.runs import look_at_run

    console = Console()
    found = [_printed(console, finding) for finding in look_at_machine(run_dir or Path("runs"))]
    if scan:
        with console.status("computing gradients of all kinds of convolutions"):
            gradients = scan_gradients()
        found.append(_printed(console, gradients))
    if run_dir is not None:
        print_text(console, f"\n{run_dir}:")
        found += [_printed(console, finding) for finding in look_at_run(run_dir)]
    if n_broken := sum(finding.health is Health.BROKEN for finding in found):
        print_text(console, f"\n{n_broken} of {len(found)} are broken.")
        raise typer.Exit(1)


def _printed(console: Console, finding: "Finding") -> "Finding":
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    print_text(console, f"{finding.health:>8}  {finding.name}: {finding.text}{remedy}")
    return finding
