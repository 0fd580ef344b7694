"""How much less memory does the best order of operators take than the order in which a cell's code runs?"""

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.common import parser, report
from experiments.memory_order.cells import GENOTYPES, CellNetwork, RandomlyWired, watts_strogatz
from latency.graph.operator_graph import OperatorGraph
from latency.graph.tracer import graph_from_torch
from latency.inference import example_input, torch_threads
from latency.memory import Fit, Release, ReorderedModel, best_order, lifetimes, order_peak, place_offline, place_online
from latency.memory.measure import allocation_peak_cpu
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell

SIZE = 32
N_RANDOM = 3  # randomly wired graphs, and candidates of this project's spaces
# The best cell on CIFAR-10 of NAS-Bench-201's table, and one that uses every edge.
NASBENCH201_CELLS = {
    "nasbench201_best": (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    ),
    "nasbench201_pools": (
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    ),
}


def models() -> Iterator[tuple[str, nn.Module]]:
    """Yield the networks by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, cell in GENOTYPES.items():
            yield name, CellNetwork(cell)
        for n_nodes, seed in itertools.product((16, 32), range(N_RANDOM)):
            yield f"randomly_wired_{n_nodes}_{seed}", RandomlyWired(watts_strogatz(n_nodes, 4, 0.75, seed), n_nodes)
    published = NasBench201(cells_per_stage=1)
    for name, text in NASBENCH201_CELLS.items():
        yield name, published.build(published.from_string(text), in_channels=3, n_classes=10, seed=0)
    segmentation, rng = SegmentationCell(), np.random.default_rng(0)
    for index in range(N_RANDOM):
        genotype = segmentation.canonical(segmentation.sample(rng))
        yield f"segmentation_cell_{index}", segmentation.build(genotype, in_channels=3, n_classes=10, seed=0)


def compare(model: nn.Module) -> dict[str, Any]:
    """Measure `model` as it is and in its best order."""
    graph = graph_from_torch(model.eval(), (3, SIZE, SIZE))
    start = time.process_time()
    order = best_order(graph)
    seconds = time.process_time() - start
    reordered = ReorderedModel(model, graph, order.order).eval()
    image = example_input((1, 3, SIZE, SIZE), torch.device("cpu"), torch.float32)
    names = {operator.name for operator in graph.operators}
    with torch_threads(1), torch.inference_mode():
        if not torch.equal(model(image), reordered(image)):
            raise AssertionError("the reordered model computes something else")
        eager = allocation_peak_cpu(lambda: model(image), names)
        best = allocation_peak_cpu(lambda: reordered(image), names)
    return {
        "eager_bytes": eager.without_scratch_bytes,
        "best_bytes": best.without_scratch_bytes,
        "ratio": eager.without_scratch_bytes / best.without_scratch_bytes,
        "is_proved": order.is_proved,
        "seconds": seconds,
        "n_operators": len(graph.operators),
        "n_states": order.n_states,
        "lower_bound_bytes": order.lower_bound_bytes,
        "last_use_bytes": order_peak(graph),
        "with_scratch": {"eager_bytes": eager.n_bytes, "best_bytes": best.n_bytes},
        "fragmentation": fragmentation(graph, order.order),
    }


def fragmentation(graph: OperatorGraph, order: tuple[int, ...]) -> dict[str, float]:
    """Return the share of a block that is lost at the peak, for the code's order and the best one."""
    own = lifetimes(graph, release=Release.BY_CODE)
    best = lifetimes(graph, release=Release.LAST_USE, order=order)
    return {
        "eager_first_fit": place_online(own).fragmentation,
        "eager_best_fit": place_online(own, Fit.BEST).fragmentation,
        "eager_planned": place_offline(own).fragmentation,
        "best_first_fit": place_online(best).fragmentation,
        "best_best_fit": place_online(best, Fit.BEST).fragmentation,
        "best_planned": place_offline(best).fragmentation,
    }


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    """Compare all and report."""
    arguments = parser(__doc__ or "").parse_args()
    cells = {name: compare(model) for name, model in models()}
    report(
        {
            "cells": cells,
            "geometric_mean_ratio": geometric_mean([cell["ratio"] for cell in cells.values()]),
            "geometric_mean_ratio_of_the_order_alone": geometric_mean(
                [cell["last_use_bytes"] / cell["best_bytes"] for cell in cells.values()]
            ),
            "share_proved": sum(cell["is_proved"] for cell in cells.values()) / len(cells),
            "worst_proof_seconds": max(cell["seconds"] for cell in cells.values() if cell["is_proved"]),
        },
        arguments,
    )


if __name__ == "__main__":
    main()
