"""What does a device cost a search? Seconds of a small search by device, and what writing an ONNX file adds."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

import nas
from experiments.common import parser, report
from latency.devices.onnx_device import OnnxDevice
from latency.graph.onnx_writer import OnnxFile, write_onnx, write_onnx_to_measure
from search_spaces.spaces.segmentation_cell import SegmentationCell

CONFIG = Path("configs/quickstart.yaml")
DEVICES = ("torch_cpu", "onnxruntime")
SMALL: dict[str, Any] = {
    "data": {"kind": "synthetic_faces", "image_size": 64, "n_train": 128, "n_validation": 32},
    "teacher": {"kind": "unet", "width": 8, "recipe": {"epochs": 1, "batch_size": 8}},
    "pretraining": {"epochs": 1, "batch_size": 8},
    "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.02, "device": "cpu"},
    "controller": {"kind": "nsga2", "population_size": 4, "n_generations": 2},
    "execution": {"kind": "serial"},
    "tensorboard": False,
}
SHAPE = (3, 64, 64)


def main() -> None:
    """Run the searches in turn, then write and time files of the same space."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--n-files", type=int, default=10)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        searches, cpu = search_seconds(Path(folder), options.repeats)
        files = compare_files(Path(folder), options.n_files)
    medians = {device: statistics.median(seconds) for device, seconds in searches.items()}
    result = {
        "median_search_s": medians,
        "ratio": medians["onnxruntime"] / medians["torch_cpu"],
        "ratio_of_quickest": min(searches["onnxruntime"]) / min(searches["torch_cpu"]),
        "goal": 1.2,
        "search_s": searches,
        "ratio_of_cpu_s": statistics.median(cpu["onnxruntime"]) / statistics.median(cpu["torch_cpu"]),
        "search_cpu_s": cpu,
        **files,
    }
    report(result, options)


def search_seconds(folder: Path, n_repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return by device the seconds of each search, and those of the processor in it.

    Both devices take turns, after one search of each that does not count.

    The first search also makes the teacher and the encoder, which the others find in the folder.
    """
    seconds: dict[str, list[float]] = {device: [] for device in DEVICES}
    cpu_seconds: dict[str, list[float]] = {device: [] for device in DEVICES}
    for repeat in range(-1, n_repeats):
        for device in DEVICES[:: 1 if repeat % 2 else -1]:
            start, cpu_start = time.perf_counter(), time.process_time()
            nas.run_search(configuration(device), folder / f"{device}_{repeat}")
            if repeat >= 0:
                seconds[device].append(time.perf_counter() - start)
                cpu_seconds[device].append(time.process_time() - cpu_start)
    return seconds, cpu_seconds


def configuration(device: str) -> dict[str, Any]:
    """Return the quickstart, small, with this device."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return config | SMALL | {"devices": {"cpu": {"kind": device, "n_threads": 1, "batch_size": 1}}}


def compare_files(folder: Path, n_files: int) -> dict[str, Any]:
    """Return what a file that is only measured costs beside the one that users export, and whether it is as quick."""
    # All of the one, then all of the other: the exporter leaves much for Python's garbage collector to do.
    models = [_model(number) for number in range(n_files + 1)]
    measured = [folder / f"measured_{number}.onnx" for number in range(n_files + 1)]
    exported = [folder / f"exported_{number}.onnx" for number in range(n_files + 1)]
    quickly = [_timed(write_onnx_to_measure, model, path) for model, path in zip(models, measured, strict=True)]
    exported_s = [_timed(write_onnx, model, path)[1] for model, path in zip(models, exported, strict=True)]
    measured_s = [seconds for _, seconds in quickly]
    ratios = [_latency_ratio(one, other) for one, other in zip(measured[1:], exported[1:], strict=True)]
    return {
        # The first imports and starts what all others use.
        "cpu_s_per_file": {"measured": _spread(measured_s[1:]), "exported": _spread(exported_s[1:])},
        "cpu_s_of_the_first": {"measured": measured_s[0], "exported": exported_s[0]},
        "latency_of_measured_to_exported": _spread(ratios),
        "n_files": n_files,
        "n_written_by_the_exporter_all_the_same": sum(bool(file.untranslated) for file, _ in quickly),
    }


def _timed(write: Callable[..., OnnxFile], model: nn.Module, path: Path) -> tuple[OnnxFile, float]:
    """Return what was written, and the processor's seconds for it."""
    start = time.process_time()
    written = write(model, SHAPE, path)
    return written, time.process_time() - start


def _latency_ratio(one: Path, other: Path) -> float:
    device = OnnxDevice()
    rounds = [[device.measure_file(path, SHAPE).median_ms for path in (one, other)] for _ in range(3)]
    return statistics.median(first / second for first, second in rounds)


def _model(number: int) -> nn.Module:
    space = SegmentationCell(n_cells=2, n_branches=2)
    genotype = space.sample(np.random.default_rng((0, number)))
    torch.set_num_threads(1)
    return space.build(genotype, in_channels=SHAPE[0], n_classes=8, seed=number).eval()


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    main()
