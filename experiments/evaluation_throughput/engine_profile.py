"""Where does the engine's time go? One network of the quickstart's space, by torch's profiler, on this CPU."""

import re
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from experiments.common import parser, report
from nas.data import Split, SyntheticFaces
from nas.distillation import Distillation
from nas.normalization import Normalization
from nas.tasks import Segmentation
from nas.training import TrainingRecipe, torch_threads, train
from nas.training_data import ImageData
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


def shares() -> dict[str, float]:
    """Return the share of a training's time by group, self time of operators."""
    faces = SyntheticFaces(64, _N_IMAGES, 8)
    examples = faces.load(Split.TRAIN)
    task = Segmentation(faces.class_names, class_weights=(1, 1, 1, 5, 5, 5, 5, 3))
    space = SegmentationCell(n_cells=2, n_branches=2)
    logits = np.random.default_rng(0).standard_normal((_N_IMAGES, 8, 64, 64)).astype(np.float16)
    data = ImageData(examples, Normalization.of(examples.images), logits)
    genotype = space.canonical(space.sample(np.random.default_rng(1)))
    model = space.build(genotype, in_channels=3, n_classes=8, seed=0)

    def train_once() -> None:
        train(model, _RECIPE, task=task, data=data, seed=0, distillation=Distillation())

    with torch_threads(1):
        train_once()  # what happens at first use only is not of interest
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            train_once()
    found = dict.fromkeys([*_GROUPS, "other"], 0.0)
    for event in profiler.key_averages():
        group = next((name for name, pattern in _GROUPS.items() if re.search(pattern, event.key)), "other")
        found[group] += event.self_cpu_time_total
    total = sum(found.values())
    return {name: time / total for name, time in found.items()}


def main() -> None:
    """Profile one training."""
    options = parser(__doc__ or "").parse_args()
    result: dict[str, Any] = {"torch": torch.__version__, "share_of_time": shares()}
    report(result, options)


if __name__ == "__main__":
    main()
