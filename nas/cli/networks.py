"""Commands for one network of a run: retrain, export."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nas.cli.common import CandidateId, RunDir, TrustCode, allow_local_modules, print_text, saying_how_to_go_on
from nas.errors import InputError


def retrain(
    run_dir: RunDir,
    candidate: Annotated[
        str,
        typer.Option(
            metavar="ID", help="The candidate's id, or a unique prefix of it; or the name of a reference model."
        ),
    ],
    epochs: Annotated[int, typer.Option(help="The epochs of the full training.")],
    trust_code: TrustCode = False,
) -> None:
    """Train a candidate fully, then score it on the test split."""
    from nas import api
    from nas.analysis.tables import format_value

    allow_local_modules(trust_code)
    console = Console()
    with saying_how_to_go_on(console, "The interrupted training was discarded."):
        record = api.retrain(run_dir, candidate, epochs, trust_code=trust_code, console=console)
    print_text(console, f"{record.id}: {record.candidate.description}")
    for metric, value in record.retrained.items():
        quick = record.metrics.get(metric)
        validation = "" if quick is None else f"   (validation after quick training: {format_value(metric, quick)})"
        print_text(console, f"  test {metric} {format_value(metric, value)}{validation}")


def export(
    run_dir: RunDir,
    candidate: CandidateId = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Take the knee: the front's member nearest to its ideal point.")
    ] = False,
    form: Annotated[str, typer.Option("--format", help="The file format.")] = "onnx",
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: in the run's folder.")] = None,
    trust_code: TrustCode = False,
) -> None:
    """Export a candidate's trained network to a file, and check that its outputs agree with torch's."""
    from nas import api

    if knee == (candidate is not None):
        raise InputError("give either --candidate ID or --knee")
    allow_local_modules(trust_code)
    print(api.export(run_dir, candidate, format=form, path=output, trust_code=trust_code))
