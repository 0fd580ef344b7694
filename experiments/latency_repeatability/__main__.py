"""How far does a latency repeat in a fresh process? `measure_latency` beside a plain mean of 10 cold runs."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.common import parser, report
from latency.devices.torch_device import TorchCpuDevice, TorchCudaDevice
from search_spaces.base import ModelSpace
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell

SPACES: tuple[tuple[ModelSpace, tuple[int, int, int]], ...] = (
    (NasBench201(cells_per_stage=2), (3, 32, 32)),
    (SegmentationCell(), (3, 64, 64)),
)
N_PLAIN_RUNS = 10
CLEARLY_DIFFERENT = 0.03

Reading = dict[str, Any]


def main() -> None:
    """Measure in fresh processes, one after the other, and compare what they say."""
    arguments = _arguments()
    if arguments.round is not None:
        print(json.dumps(measure_all(arguments)))
        return
    start = time.perf_counter()
    rounds = [_fresh_process(arguments, number) for number in range(arguments.n_processes)]
    measured = np.array([[reading["median_ms"] for reading in row] for row in rounds])
    plain = np.array([[reading["plain_mean_ms"] for reading in row] for row in rounds])
    stable = np.array([[reading["is_stable"] for reading in row] for row in rounds])
    readings = [reading for row in rounds for reading in row]
    report(
        {
            "device": arguments.device,
            "n_models": arguments.n_models,
            "n_processes": arguments.n_processes,
            "seed": arguments.seed,
            "time_limit_s": arguments.time_limit_s,
            "median": repeatability(measured),
            "median_where_stable": repeatability(np.where(stable, measured, np.nan)),
            "plain_mean_of_10": repeatability(plain),
            "share_stable": float(stable.mean()),
            "median_n_runs": statistics.median(reading["n_runs"] for reading in readings),
            "total_s": time.perf_counter() - start,
            "readings_ms": {"median": measured.T.tolist(), "plain_mean_of_10": plain.T.tolist()},
        },
        arguments,
    )


def repeatability(readings_ms: np.ndarray) -> dict[str, float]:
    """Return how far `(n_processes, n_models)` readings of the same models agree; NaN stands for none.

    The order of two models is looked at where their medians over all processes differ by over 3 %: every reading
    of the one is compared with every reading of the other, and should say what those medians say.
    """
    readings_ms = readings_ms[:, np.isfinite(readings_ms).sum(axis=0) > 1]
    variation = np.nanstd(readings_ms, axis=0, ddof=1) / np.nanmean(readings_ms, axis=0)
    centres = np.nanmedian(readings_ms, axis=0)
    n_agree = n_compared = 0
    for faster in range(len(centres)):
        for slower in range(len(centres)):
            if centres[slower] > (1 + CLEARLY_DIFFERENT) * centres[faster]:
                fast, slow = (column[np.isfinite(column)] for column in readings_ms[:, (faster, slower)].T)
                n_agree += int((fast[:, None] < slow[None, :]).sum())
                n_compared += fast.size * slow.size
    return {
        "median_coefficient_of_variation": float(np.median(variation)),
        "largest_coefficient_of_variation": float(variation.max()),
        "share_of_models_within_1_percent": float((variation <= 0.01).mean()),
        "order_agreement": n_agree / n_compared if n_compared else float("nan"),
        "n_comparisons": n_compared,
    }


def measure_all(arguments: argparse.Namespace) -> list[Reading]:
    """Return a reading of each model, measured here and now in an order of this process's own."""
    readings: list[Reading] = [{}] * arguments.n_models
    for position in np.random.default_rng((arguments.seed, arguments.round)).permutation(arguments.n_models):
        model, shape = _model(int(position), arguments.seed)
        readings[position] = _read(model, shape, arguments)
    return readings


def _read(model: nn.Module, shape: tuple[int, int, int], arguments: argparse.Namespace) -> Reading:
    plain_mean_ms = _plain_mean_ms(model, shape, arguments.device)
    kind = TorchCudaDevice if arguments.device == "cuda" else TorchCpuDevice
    stats = kind(time_limit_s=arguments.time_limit_s).measure_latency(model, shape)
    conditions: Mapping[str, Any] = stats.conditions
    return {
        "plain_mean_ms": plain_mean_ms,
        "median_ms": stats.median_ms,
        "n_runs": stats.n_runs,
        "is_stable": conditions["is_stable"],
    }


def _plain_mean_ms(model: nn.Module, shape: tuple[int, int, int], device: str) -> float:
    """Return the mean of 10 runs with no warm-up: what scripts without a harness report."""
    torch.set_num_threads(1)
    model, image = model.to(device), torch.zeros(1, *shape, device=device)
    with torch.no_grad():
        start = time.perf_counter()
        for _ in range(N_PLAIN_RUNS):
            model(image)
        if device == "cuda":
            torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / N_PLAIN_RUNS


def _model(position: int, seed: int) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return the same random candidate in every process."""
    space, shape = SPACES[position % len(SPACES)]
    genotype = space.sample(np.random.default_rng((seed, position)))
    return space.build(genotype, in_channels=shape[0], n_classes=10, seed=position).eval(), shape


def _fresh_process(arguments: argparse.Namespace, number: int) -> list[Reading]:
    options = {name: getattr(arguments, name) for name in ("n_models", "seed", "time_limit_s", "device")}
    command = [sys.executable, "-m", "experiments.latency_repeatability", "--round", str(number)]
    command += [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    limit_s = 60 + 10 * arguments.n_models * arguments.time_limit_s  # beyond that something hangs
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit_s).stdout
    readings: list[Reading] = json.loads(output)
    return readings


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n-models", type=int, default=20)
    arguments.add_argument("--n-processes", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--time-limit-s", type=float, default=2.0, help="for one model in one process")
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--round", type=int, help=argparse.SUPPRESS)
    return arguments.parse_args()


if __name__ == "__main__":
    main()
