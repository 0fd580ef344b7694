"""Where does the engine's time go? One network of the quickstart's space, by torch's profiler, on this machine."""

import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
from torch.profiler import ProfilerActivity, profile

from experiments.common import parser, report
from nas.data import Split, SyntheticFaces
from nas.data.normalization import Normalization
from nas.tasks import Segmentation
from nas.torch_tools import torch_threads
from nas.training.batches import ImageData
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.values.recipes import TrainingRecipe
from search_spaces import SegmentationCell

_RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.02)
_N_IMAGES = 256
_GROUPS = {
    "convolutions, backward": r"conv.*backward",
    "convolutions, forward": r"conv",
    "batch normalisation": r"batch_norm",
    "losses": r"softmax|aten::(exp|nll|sub|div|log)",
    "resizing": r"upsample",
    "optimiser": r"[Oo]ptimizer|adam",
    "gathering batches": r"aten::(index|copy_)",
}
"""By what an operator belongs to, the first pattern that its name matches; the rest is small operators and overhead."""


def measure(device: str) -> dict[str, Any]:
    """Return where the time of a training goes.

    `busy_share` is the share of the clock that the device computes: on a CPU the time inside of operators, on a GPU
    that of its kernels; the rest are gaps, in which Python, or a launch, is waited for. The profiler widens them.
    """
    faces = SyntheticFaces(64, _N_IMAGES, 8)
    examples = faces.load(Split.TRAIN)
    task = Segmentation(faces.class_names, class_weights=(1, 1, 1, 5, 5, 5, 5, 3))
    space = SegmentationCell(n_cells=2, n_branches=2)
    logits = np.random.default_rng(0).standard_normal((_N_IMAGES, 8, 64, 64)).astype(np.float16)
    normalization = Normalization.of(examples.images)
    data = ImageData(examples, normalization, logits, device=device, resident_bytes=2**30)
    genotype = space.canonical(space.sample(np.random.default_rng(1)))
    model = space.build(genotype, in_channels=3, n_classes=8, seed=0)
    recipe = replace(_RECIPE, epochs=1 if device == "cpu" else 8)

    def train_once() -> float:
        start = time.perf_counter()
        train(model, recipe, task=task, data=data, seed=0, distillation=Distillation())
        return time.perf_counter() - start

    on_gpu = device != "cpu"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with torch_threads(1):
        train_once()  # what happens at first use only is not of interest
        with profile(activities=activities) as profiler:
            seconds = train_once()
    found = dict.fromkeys([*_GROUPS, "other"], 0.0)
    for event in profiler.key_averages():
        group = next((name for name, pattern in _GROUPS.items() if re.search(pattern, event.key)), "other")
        found[group] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(found.values())
    return {
        "device": device,
        "n_steps": recipe.epochs * (_N_IMAGES // recipe.batch_size),
        "busy_share": total / 1e6 / seconds,
        "share_of_busy_time": {name: busy / total for name, busy in found.items()},
    }


def main() -> None:
    """Profile one training."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = arguments.parse_args()
    report(measure(options.device), options)


if __name__ == "__main__":
    main()
