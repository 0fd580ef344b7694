"""Commands that start from a configuration: search, teacher, pretrain, validate."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.cli.common import (
    ConfigFile,
    FutureRunDir,
    Overrides,
    TrustCode,
    allow_local_modules,
    print_text,
    saying_how_to_go_on,
)
from nas.cli.runs import print_front

if TYPE_CHECKING:
    from nas.api import TrainedNetwork
    from nas.store.run import Run


def search(
    config: ConfigFile,
    run_dir: FutureRunDir = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run, or extend a finished one whose size or budget is raised.")
    ] = False,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            "--retry-failed",
            metavar="[CAUSE]",
            help="Continue a run, and ask anew for its failed candidates: all, or those whose failure was in the stage "
            "CAUSE or says CAUSE.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate the cost on this machine, and write nothing.")
    ] = False,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Run a search, and show its Pareto front."""
    from nas import api

    allow_local_modules(trust_code)
    console = Console()
    if dry_run:
        costs = api.expected_costs(config, run_dir, resume=resume, overrides=overrides or (), trust_code=trust_code)
        for line in costs.lines() if costs else ["The run is finished already: there is nothing left to do."]:
            print_text(console, line)
        return
    again = _resume_command(config, run_dir, overrides or [], trust_code)
    with saying_how_to_go_on(console, f"Everything computed so far is stored. To resume:\n  {again}"):
        run = api.run_search(
            config,
            run_dir,
            resume=resume,
            retry_failed=retry_failed,
            overrides=overrides or (),
            trust_code=trust_code,
            console=console,
        )
    print_front(console, run)
    _print_places(console, run)


def with_empty_cause(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line, with an empty cause for `--retry-failed` where none follows."""
    given = list(arguments)
    for place, argument in enumerate(given):
        following = given[place + 1 : place + 2]
        if argument == "--retry-failed" and (not following or following[0][:1] == "-" or Path(following[0]).is_file()):
            given[place] = "--retry-failed="
    return given


def _resume_command(config: Path, run_dir: Path | None, overrides: list[str], trust_code: bool) -> str:
    """Return the command that continues an interrupted search."""
    parts = ["nas", "search", str(config), *(["--run-dir", str(run_dir)] if run_dir else [])]
    parts += [part for override in overrides for part in ("--set", override)]
    return shlex.join([*parts, *(["--trust-code"] if trust_code else []), "--resume"])


def _print_places(console: Console, run: "Run") -> None:
    """Print where a finished search left its results, and the commands that use them."""
    places = {
        "records": run.path / "store.sqlite",
        "plots": run.path / "plots",
        "TensorBoard": f"tensorboard --logdir {run.path / 'tensorboard'}",
    }
    if run.front and any((run.path / "weights").glob("*")):
        places["next"] = f"nas retrain {run.path} --candidate ID --epochs N; nas export {run.path} --knee"
    places["report"] = f"nas report {run.path}"
    for what, place in places.items():
        print_text(console, f"{what:>12}: {place}")


def teacher(
    config: ConfigFile, run_dir: FutureRunDir = None, overrides: Overrides = None, trust_code: TrustCode = False
) -> None:
    """Train the teacher unless another run in the same folder has; searches reuse it."""
    from nas import api

    _train(api.make_teacher, "teacher", config, run_dir, overrides, trust_code)


def pretrain(
    config: ConfigFile, run_dir: FutureRunDir = None, overrides: Overrides = None, trust_code: TrustCode = False
) -> None:
    """Train the candidates' shared encoder unless another run in the same folder has; searches reuse it."""
    from nas import api

    _train(api.pretrain, "encoder", config, run_dir, overrides, trust_code)


def _train(
    train: Callable[..., "TrainedNetwork"],
    name: str,
    config: Path,
    run_dir: Path | None,
    overrides: list[str] | None,
    trust_code: bool,
) -> None:
    """Train a network that candidates depend on, and print its file, size and scores."""
    from nas.analysis.tables import format_value

    allow_local_modules(trust_code)
    console = Console()
    with saying_how_to_go_on(console, "The interrupted training was discarded."):
        network = train(config, run_dir, overrides=overrides or (), trust_code=trust_code, console=console)
    print_text(console, f"{name} {network.path}: {network.n_params:,} parameters")
    for metric, value in network.scores.items():
        print_text(console, f"  validation {metric} {format_value(metric, value)}")


def validate(
    config: ConfigFile,
    look_at_data: Annotated[bool, typer.Option("--data", help="Look at the data's files too.")] = False,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Check a configuration, and list all its faults."""
    from nas import assembly
    from nas.config import load_config

    allow_local_modules(trust_code)
    settings = load_config(config, overrides or (), trust_code)
    assembly.check_teacher_file(settings)
    print(f"{config}: valid. Run {settings.name!r}: {len(settings.objectives)} objectives, ", end="")
    print(f"search space {settings.search_space.kind}, controller {settings.controller.kind}.")
    if look_at_data:
        assembly.check_data(settings, print)
    elif settings.data is not None:
        print("The files of the data were not looked at: --data does that.")
