"""Commands for one network of a run: retrain, export."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.cli.common import (
    CandidateId,
    CandidateOrTeacher,
    Knee,
    Overrides,
    Prefer,
    RunDir,
    TrustCode,
    allow_local_modules,
    chosen_candidate,
    print_text,
    saying_how_to_go_on,
)

if TYPE_CHECKING:
    from nas.exporters import Exported


class Start(StrEnum):
    """Weights that a full training starts from."""

    SCRATCH = "scratch"
    QUICK = "quick"


def retrain(
    run_dir: RunDir,
    candidate: CandidateId = None,
    knee: Knee = False,
    prefer: Prefer = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="The epochs of a training. Default: ten times the quick training's, at least 30."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="K", help="Trainings under different seeds, whose mean counts.")] = 1,
    start: Annotated[
        Start, typer.Option("--from", help="Start as candidates do in the search, or from the quick weights.")
    ] = Start.SCRATCH,
    patience: Annotated[
        int | None,
        typer.Option(metavar="N", help="End after N epochs without a better validation score; take the best weights."),
    ] = None,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Train a candidate fully, then score it on the test split; after an interruption the same command goes on.

    On several GPUs: torchrun --nproc-per-node N -m nas retrain ...
    """
    from nas import api
    from nas.analysis.tables import format_value, tested_text
    from nas.training.processes import is_follower

    allow_local_modules(trust_code)
    if is_follower():  # the first process reads the options, and speaks
        api.follow_retraining()
        return
    console = Console()
    chosen = chosen_candidate(run_dir, candidate, knee, prefer)
    with saying_how_to_go_on(console, "All epochs so far are kept: the same command goes on."):
        record = api.retrain(
            run_dir,
            chosen,
            epochs,
            n_seeds=seeds,
            start=start.value,
            patience=patience,
            overrides=overrides or (),
            trust_code=trust_code,
            console=console,
        )
    print_text(console, f"{record.id}: {record.candidate.description}")
    for metric in record.retrained:
        quick = record.metrics.get(metric)
        validation = "" if quick is None else f"   (validation after quick training: {format_value(metric, quick)})"
        print_text(console, f"  test {metric} {tested_text(record, metric)}{validation}")


def export(
    run_dir: RunDir,
    candidate: CandidateOrTeacher = None,
    knee: Knee = False,
    prefer: Prefer = None,
    form: Annotated[
        str,
        typer.Option("--format", help="onnx, onnx_int8, exported_program, safetensors or python."),
    ] = "onnx",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write to. Default: the run's.")] = None,
    output: Annotated[Path | None, typer.Option(help="The file to write, instead of --out.")] = None,
    opset: Annotated[int | None, typer.Option(min=1, help="Version of ONNX's operators. Default: the newest.")] = None,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Let an ONNX file of a segmentation network take images of any size.")
    ] = False,
    with_processing: Annotated[
        bool, typer.Option("--with-processing", help="Put resizing, normalisation and the choice of the class inside.")
    ] = False,
    max_drop: Annotated[
        float | None, typer.Option(min=0.0, help="Refuse a quantised network whose score falls by more.")
    ] = None,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Export a candidate's trained network, compare it with torch, and say what goes in and comes out.

    The output is the path alone, for scripts; what is said of the file goes to the error output.
    """
    from nas import api

    allow_local_modules(trust_code)
    chosen = chosen_candidate(run_dir, candidate, knee, prefer, or_teacher=True)
    exported = api.export_network(
        run_dir,
        chosen,
        format=form,
        path=output,
        folder=out,
        opset=opset,
        any_size=any_size,
        with_processing=with_processing,
        max_drop=max_drop,
        overrides=overrides or (),
        trust_code=trust_code,
    )
    for path in exported.paths:
        print(path)
    _print_contract(exported)


def _print_contract(exported: "Exported") -> None:
    """Print what goes in and comes out, what was compared, and how to use it."""
    console = Console(stderr=True)
    for line in exported.contract.lines():
        print_text(console, line)
    for comparison in exported.comparisons:
        print_text(console, f"  compared with torch on {comparison}")
    for remark in exported.remarks:
        print_text(console, f"  {remark}")
    print_text(console, "")
    for line in exported.snippet.splitlines():
        print_text(console, f"    {line}")
