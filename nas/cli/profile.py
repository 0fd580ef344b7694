"""The command `nas profile`."""

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.cli.common import (
    AsJson,
    CandidateId,
    Knee,
    Overrides,
    Prefer,
    TrustCode,
    allow_local_modules,
    chosen_candidate,
)
from nas.errors import InputError

if TYPE_CHECKING:
    from nas.profiling.profile import Profile, Target


def profile(
    source: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG|RUN|FILE.onnx]", help="Where the network comes from.")
    ] = None,
    genotype: Annotated[
        str | None, typer.Option(help="A genotype of CONFIG's search space: 1,2,3 or its text form.")
    ] = None,
    candidate: CandidateId = None,
    knee: Knee = False,
    prefer: Prefer = None,
    model: Annotated[
        str | None, typer.Option(metavar="PACKAGE.MODULE:FACTORY", help="A function that returns a torch model.")
    ] = None,
    input_sizes: Annotated[
        str | None,
        typer.Option("--input", metavar="B,C,H,W", help="The input's sizes for --model or FILE.onnx; B is the batch."),
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Where to measure latency: a device of the configuration, or KIND:OPTION=VALUE,...; repeatable. "
            "Default: all devices of the configuration, or this CPU.",
        ),
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Fold modules nested deeper than this.")] = None,
    memory_plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Plot the memory over the operators.")
    ] = None,
    breakdown: Annotated[
        str | None,
        typer.Option(
            metavar="cpu|cuda:N", help="Break down a process's memory on this device, in inference and in training."
        ),
    ] = None,
    as_json: AsJson = False,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Show what a network costs, module by module: parameters, operations, memory, time."""
    from nas.profiling import profile as profiling
    from nas.profiling.tables import show, to_json

    allow_local_modules(trust_code)
    if knee or prefer is not None:
        if source is None or not source.is_dir():
            raise InputError("--knee and --prefer choose from the front of a run: give its folder")
        candidate = chosen_candidate(source, candidate, knee, prefer)
    target = _target(source, genotype, candidate, model, input_sizes, overrides or [], trust_code)
    found = profiling.profile(
        target, profiling.devices_named(devices or (), target), depth=depth, breakdown_device=breakdown
    )
    if memory_plot is not None:
        _plot_memory(found, memory_plot)
    if as_json:
        print(json.dumps(to_json(found), indent=2))
    else:
        show(Console(), found)


def _plot_memory(found: "Profile", path: Path) -> None:
    from latency.profiling.plot import draw_memory

    if found.memory is None:
        print(f"--plot: {path} was not drawn, as the network cannot be traced", file=sys.stderr)
        return
    try:
        draw_memory(found.memory, found.target.title[:60]).savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot: {path} cannot be written: {error}") from error


def _target(
    source: Path | None,
    genotype: str | None,
    candidate: str | None,
    model: str | None,
    input_sizes: str | None,
    overrides: list[str],
    trust_code: bool,
) -> "Target":
    """Return the network that the arguments of `nas profile` name."""
    from nas.profiling import profile as profiling

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
    """Refuse options that `source` does not use: figures made without them would be misread."""
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
