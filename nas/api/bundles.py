"""Bundles: written from a run, asked about images, timed, scored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latency.devices.base import Device
from latency.devices.onnx_device import OnnxDevice
from latency.errors import LatencyError
from nas import assembly
from nas.analysis.plots import draw_pair
from nas.api.products import chosen_record, load_model, onnx_device, product_of, task_of
from nas.config import load_config
from nas.data.base import Split
from nas.errors import InputError
from nas.exporters import Exported, ExportOptions
from nas.exporters.bundle import Bundle, write_bundle
from nas.exporters.bundle.predict import BadInputError, label
from nas.exporters.bundle.writing import read_manifest
from nas.exporters.onnx_file import onnx_run
from nas.exporters.product import DataAtHand
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.records import Record
from nas.version import VERSION

_N_AT_A_TIME = 1024  # decoded images in memory


def bundle(
    run_dir: Path | str,
    candidate: str | None = None,
    *,
    folder: Path,
    formats: Sequence[str] = (),
    opset: int | None = None,
    max_drop: float | None = None,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> list[Exported]:
    """Write a candidate's network with all that its users need to one folder: see `write_bundle`.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or a unique prefix of it; the name of a reference model; `teacher`; by default the front's
            knee.
        folder: To write; it must not be there yet.
        formats: Beside `onnx` and `safetensors`, which every bundle holds.
        opset: Of ONNX files; `None` for the exporter's own.
        max_drop: The largest fall of a score by quantisation that is accepted; `None` for any.
        overrides: Of the run's configuration, such as `"data.root=/elsewhere"` for data that was moved.
        trust_code: Whether to import Python code that the run's configuration names.

    Raises:
        InputError: If there is no such run or candidate, it was never trained, or the folder cannot be written.
        ExportError: If a format cannot be written; nothing is left then.
    """
    run = Run.load(run_dir)
    record = chosen_record(run, candidate)
    settings = load_config(run.path / "config.yaml", overrides, trust_code)
    with RunFolder.read(run.path) as opened:
        product = product_of(settings, opened, record)
        facts = {
            **(_teacher_facts(run) if record is None else _record_facts(record)),
            "configuration": settings.to_mapping(),
            "data_fingerprint": opened.store.fact("data"),
            "teacher": {"weights": opened.store.fact("teacher_weights"), **(run.teacher or {})},
            "versions": {**(opened.store.fact("versions") or {}), "bundled_with": VERSION},
        }
        named = record is None or record in run.references
        title = f"{run.name}: {product.origin['network'] if named else product.origin['candidate']}"
        drawing = assembly.drawing_of(settings, record.candidate) if record else ""
        whole = Bundle(title, facts, _figures(run, record), drawing)
        options = ExportOptions(opset, max_drop=max_drop, device=onnx_device(settings))
        return write_bundle(product, whole, folder, formats, options)


def _record_facts(record: Record) -> dict[str, Any]:
    """Return what the manifest says of a candidate or a reference."""
    return {
        "genotype": {"space": record.candidate.genotype.space, "genes": list(record.candidate.genotype.genes)},
        "metrics": {
            metric: {"value": value, "conditions": dict(record.conditions.get(metric, {}))}
            for metric, value in record.metrics.items()
        },
        "test_scores": dict(record.retrained),
        "test_spread": dict(record.retrained_spread),
    }


def _teacher_facts(run: Run) -> dict[str, Any]:
    """Return the same of the teacher, which is counted and scored, but neither timed nor tested."""
    size = (run.teacher or {}).get("n_params")
    return {"metrics": {} if size is None else {"n_params": {"value": size, "conditions": {}}}}


def _figures(run: Run, record: Record | None) -> dict[str, Any]:
    """Return the front in its first two objectives, with a record marked."""
    if len(run.objectives) < 2:
        return {}
    y, x = run.objectives[:2]
    figure = draw_pair(run, x, y)
    if record and x.metric in record.metrics and y.metric in record.metrics:
        place = (record.metrics[x.metric], record.metrics[y.metric])
        ring: dict[str, Any] = {
            "markersize": 16,
            "markerfacecolor": "none",
            "markeredgecolor": "#111827",
            "markeredgewidth": 2,
        }
        figure.axes[0].plot(*place, marker="o", zorder=5, **ring)
    return {"front.png": figure}


def predict(
    folder: Path, images: Sequence[Path], *, out: Path, raw: Path | None = None, trust_code: bool = False
) -> None:
    """Label image files by the weights of a bundle, in torch; prints and writes what its predict.py does.

    Args:
        folder: The bundle.
        images: Files.
        out: Where overlays go.
        raw: Where to keep class maps or probabilities as `.npy`; `None` for nowhere.
        trust_code: Whether to import Python code that the bundle names: a search space of one's own.

    Raises:
        InputError: If the bundle is not whole, or an image cannot be read.
    """
    manifest = read_manifest(folder)
    network = load_model(folder / "weights", trust_code=trust_code)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)))

    try:
        label(manifest, run, images, out, raw)
    except BadInputError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{out if raw is None else raw} cannot be written: {error}") from error


@dataclass(frozen=True)
class FileTiming:
    """The latency of one file of a bundle.

    Attributes:
        file: Its name.
        latency_ms: Median.
        p10_ms: The quicker end.
        p90_ms: The slower end.
        is_disturbed: Whether something else ran meanwhile.
    """

    file: str
    latency_ms: float
    p10_ms: float
    p90_ms: float
    is_disturbed: bool


@dataclass(frozen=True)
class Bench:
    """What a bundle's files take on a device, and what the search measured.

    Attributes:
        timings: Of each ONNX file.
        searched: Latencies by metric, as the search measured them.
        places: By metric: processor and runtime of these.
    """

    timings: tuple[FileTiming, ...]
    searched: Mapping[str, float]
    places: Mapping[str, str]


def bench(folder: Path, device: Device | None = None) -> Bench:
    """Time the ONNX files of a bundle on a device of kind onnxruntime.

    Raises:
        InputError: If the bundle is not whole, the device is of another kind, or a file cannot be timed.
    """
    manifest = read_manifest(folder)
    device = device or OnnxDevice()
    if not isinstance(device, OnnxDevice):
        raise InputError("--device must be of kind onnxruntime: it times the files themselves")
    channels = 1 if manifest["contract"]["channels"] == "grey" else 3
    shape = (channels, *manifest["contract"]["image_size"])
    timings = []
    for name in sorted(name for name in manifest["files"] if name.endswith(".onnx")):
        try:
            stats = device.measure_file(folder / name, shape)
        except LatencyError as error:
            raise InputError(f"{folder / name} cannot be timed: {error}") from error
        timings.append(FileTiming(name, stats.median_ms, stats.p10_ms, stats.p90_ms, stats.is_disturbed))
    searched = {name: one for name, one in manifest.get("metrics", {}).items() if name.startswith("latency_ms")}
    places = {
        name: ", ".join(str(one["conditions"][key]) for key in ("processor", "runtime") if key in one["conditions"])
        for name, one in searched.items()
    }
    return Bench(tuple(timings), {name: one["value"] for name, one in searched.items()}, places)


def evaluate(
    folder: Path,
    config: Path,
    *,
    split: str = "validation",
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> tuple[dict[str, float], dict[str, float]]:
    """Score the ONNX file of a bundle on a split of a configuration's data.

    Args:
        folder: The bundle.
        config: A configuration whose sections `data` and `task` count.
        split: `validation` or `test`.
        overrides: Of the configuration.
        trust_code: Whether to import Python code that the configuration names.

    Returns:
        The scores, and those that the bundle's manifest holds of the same split.

    Raises:
        InputError: If the bundle is not whole, or does not fit the data.
        DataError: If the data is missing or broken.
    """
    manifest = read_manifest(folder)
    settings = load_config(config, overrides, trust_code)
    if settings.data is None:
        raise InputError(f"{config} has no data section: there is nothing to score on")
    dataset = settings.data.instance
    contract = manifest["contract"]
    size, names = tuple(contract["image_size"]), tuple(contract["class_names"])
    if tuple(dataset.class_names) != names:
        found = ", ".join(dataset.class_names)
        raise InputError(f"{config}: the classes are {found}, the bundle knows {', '.join(names)}")
    if dataset.image_size != size:
        raise InputError(
            f"{config}: data.image_size must be {list(size)}, the bundle's, got {list(dataset.image_size)}"
        )
    dataset.check()
    task = task_of(settings)
    scorer, run = task.new_scorer(), onnx_run(folder / "model.onnx", torch.get_num_threads())
    _, parts = dataset.parts(Split(split), _N_AT_A_TIME)
    for part in parts:
        DataAtHand(part, part.images, task).add_to(scorer, run)
    known = manifest.get("test_scores" if split == "test" else "validation_scores", {})
    scores = {metric: value for metric, value in scorer.compute().items() if math.isfinite(value)}
    return scores, dict(known)
