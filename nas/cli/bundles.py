"""Commands for bundles: bundle, predict, bench, evaluate."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nas.cli.common import (
    AsJson,
    CandidateOrTeacher,
    Knee,
    Overrides,
    Prefer,
    RunDir,
    TrustCode,
    allow_local_modules,
    chosen_candidate,
    print_text,
)

BundleDir = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that nas bundle wrote.")]


class ScoredSplit(StrEnum):
    """Splits that a bundle can be scored on."""

    VALIDATION = "validation"
    TEST = "test"


def bundle(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write; it must not be there yet.")],
    candidate: CandidateOrTeacher = None,
    knee: Knee = False,
    prefer: Prefer = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="Beside onnx and safetensors: onnx_int8, exported_program or python; repeatable."
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(min=1, help="Version of ONNX's operators. Default: the newest.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0.0, help="Refuse a quantised network whose score falls by more.")
    ] = None,
    overrides: Overrides = None,
    trust_code: TrustCode = False,
) -> None:
    """Write one folder with a network's files, model card, manifest, and a script that labels images."""
    from nas import api

    allow_local_modules(trust_code)
    chosen = chosen_candidate(run_dir, candidate, knee, prefer, or_teacher=True)
    exported = api.bundle(
        run_dir,
        chosen,
        folder=out,
        formats=formats or (),
        opset=opset,
        max_drop=max_drop,
        overrides=overrides or (),
        trust_code=trust_code,
    )
    console = Console()
    for one in exported:
        compared = "; ".join(map(str, one.comparisons))
        print_text(console, f"{one.format}: {compared or 'weights as they are'}")
        for remark in one.remarks:
            print_text(console, f"  {remark}")
    print_text(console, f"model card: {out / 'README.md'}")
    print_text(console, f"      next: python {out / 'predict.py'} IMAGE...")


def predict(
    bundle_dir: BundleDir,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where overlays go.")] = Path(),
    raw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also keep class maps or probabilities as .npy.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Label image files by a bundle's weights, in torch."""
    from nas import api

    allow_local_modules(trust_code)
    api.predict(bundle_dir, images, out=out, raw=raw, trust_code=trust_code)


def bench(
    bundle_dir: BundleDir,
    device: Annotated[
        str,
        typer.Option(metavar="KIND:OPTION=VALUE,...", help="Where: onnxruntime, with its options, e.g. n_threads=4."),
    ] = "onnxruntime",
    as_json: AsJson = False,
) -> None:
    """Time a bundle's ONNX files here, beside what the search measured."""
    import dataclasses

    from nas import api
    from nas.profiling.profile import device_named

    found = api.bench(bundle_dir, device_named(device))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
        return
    console = Console()
    for one in found.timings:
        mark = "   (something else ran meanwhile)" if one.is_disturbed else ""
        spread = f"{one.p10_ms:.3g} to {one.p90_ms:.3g} ms"
        print_text(console, f"{one.file}: {one.latency_ms:.3g} ms (8 in 10 calls: {spread}){mark}")
    for metric, value in found.searched.items():
        ratio = found.timings[0].latency_ms / value
        place = f" ({found.places[metric]})" if found.places[metric] else ""
        print_text(console, f"  the search measured {metric} {value:.3g} ms{place}; here it is {ratio:.2f} times that")


def evaluate(
    bundle_dir: BundleDir,
    config: Annotated[Path, typer.Option("--data", metavar="CONFIG", help="The YAML file whose data to score on.")],
    split: Annotated[ScoredSplit, typer.Option(help="Which split.")] = ScoredSplit.VALIDATION,
    overrides: Overrides = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Score a bundle's ONNX file on a split, beside the scores that its manifest holds."""
    from nas import api

    allow_local_modules(trust_code)
    scores, known = api.evaluate(
        bundle_dir, config, split=split.value, overrides=overrides or (), trust_code=trust_code
    )
    if as_json:
        print(json.dumps({"scores": scores, "manifest": known}, indent=2))
        return
    console = Console()
    for metric, value in scores.items():
        beside = f"   (manifest: {known[metric]:.4f})" if metric in known else ""
        print_text(console, f"{metric} {value:.4f}{beside}")
