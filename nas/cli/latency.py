"""Commands `nas latency ...`: collect, fit, evaluate, serve."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from nas.cli.common import AsJson, Overrides, TrustCode, allow_local_modules, print_text, saying_how_to_go_on


def collect(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Gives space, image size and device.")],
    device: Annotated[str, typer.Option(metavar="NAME", help="The device of the configuration to measure on.")],
    n: Annotated[int, typer.Option("-n", help="Networks to measure.")] = 100,
    layers: Annotated[int, typer.Option(help="Layers of these networks to measure alone first, at most.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: latency_NAME.jsonl.")] = None,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Measure networks of a search space on a device, to foretell all others; the same command goes on."""
    from nas.profiling.collecting import collect as collect_readings

    allow_local_modules(trust_code)
    console = Console()
    path = out or Path(f"latency_{device}.jsonl")
    with (
        saying_how_to_go_on(console, "All readings so far are kept: the same command goes on."),
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("", total=None)
        found = collect_readings(
            config,
            device,
            n,
            path,
            n_alone=layers,
            overrides=overrides or (),
            trust_code=trust_code,
            on_progress=lambda what, n_done, n_all: progress.update(
                bar, description=what, completed=n_done, total=n_all
            ),
        )
    failed = f", {found.n_failed} that could not be measured" if found.n_failed else ""
    alone = f", {found.n_alone} layers alone" if found.n_alone else ""
    repeated = f"{found.n_repeated} readings taken again{failed}"
    print_text(console, f"{found.path}: {found.n_models} networks{alone}, {repeated}")
    print_text(console, f"the first network's readings drifted by {found.drift:+.1%}")
    print_text(console, f"next: nas latency evaluate {path}; nas latency fit {path}")


def fit(
    readings: Annotated[Path, typer.Argument(metavar="FILE", help="Readings of nas latency collect.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model. Default: the readings' name with _model.")
    ] = None,
) -> None:
    """Learn a device from readings, and write what a device of kind predicted takes."""
    from nas.profiling.collecting import fit as fit_readings

    path = out or readings.with_name(f"{readings.stem}_model.jsonl")
    model = fit_readings(readings, path)
    console = Console()
    latencies = model.latencies_ms
    print_text(console, f"{len(model.readings)} networks of {latencies.min():.3g} to {latencies.max():.3g} ms")
    print_text(console, "weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in model.weights.items()))
    print_text(console, f"{path}; in a configuration: devices: {{NAME: {{kind: predicted, model: {path}}}}}")


def serve(
    host: Annotated[str, typer.Option(help="Where to listen; an SSH tunnel reaches the loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8765,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The token that clients show. Default: a new one is printed.")
    ] = None,
    max_mib: Annotated[int, typer.Option(min=1, help="The largest file.")] = 256,
    queue: Annotated[int, typer.Option(min=0, help="Measurements that may wait.")] = 4,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds of the longest measurement.")] = 600.0,
) -> None:
    """Let this machine measure ONNX files for others; a board without torch says python -m latency.serving."""
    from latency.serving.server import serve as serve_readings

    serve_readings(host, port, token_file, max_mib, queue, time_limit)


def evaluate(
    readings: Annotated[Path, typer.Argument(metavar="FILE", help="Readings of nas latency collect.")],
    on: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Readings to foretell. Default: those of FILE, in five folds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how well the readings of a device foretell those that they were not learnt from."""
    from nas.profiling.collecting import evaluate as evaluate_readings

    quality = evaluate_readings(readings, on)
    if as_json:
        print(json.dumps(quality.figures, indent=2))
        return
    for name, value in quality.figures.items():
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        print_text(Console(), f"{name:14} {text}")
