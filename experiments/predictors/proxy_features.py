"""Zero-cost proxies of a sample of NAS-Bench-201 networks, computed once and kept."""

import time
from pathlib import Path

import numpy as np
import torch

from nas.predictors.proxies import zero_cost_proxies
from search_spaces import NasBench201
from search_spaces.spaces.tabular import Tabular

_WIDTH, _CELLS_PER_STAGE, _IMAGE_SIZE, _BATCH_SIZE = 8, 1, 16, 32
_N_CLASSES = 10


def sample_with_proxies(
    table: Tabular, n: int, seed: int, cache: Path
) -> tuple[np.ndarray, dict[str, np.ndarray], float]:
    """Return random rows of `table` and the proxies of their networks on random images.

    Args:
        table: NAS-Bench-201.
        n: How many rows.
        seed: Of rows, images and weights.
        cache: An npz file that keeps them; made if it is missing.

    Returns:
        `(n,)` row numbers; `(n,)` values by proxy; and the seconds that a network took.
    """
    if not cache.exists():
        rows = np.random.default_rng(seed).permutation(len(table.rows))[:n]
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(_BATCH_SIZE, 3, _IMAGE_SIZE, _IMAGE_SIZE, generator=generator)
        labels = torch.randint(0, _N_CLASSES, (_BATCH_SIZE,), generator=generator)
        space = NasBench201(width=_WIDTH, cells_per_stage=_CELLS_PER_STAGE)
        found, start = [], time.perf_counter()
        for row in rows:
            model = space.build(
                space.genotype(table.rows[row].tolist()), in_channels=3, n_classes=_N_CLASSES, seed=seed
            )
            found.append(zero_cost_proxies(model, images, labels, seed=seed))
        seconds_each = (time.perf_counter() - start) / n
        values = np.array([list(proxies.values()) for proxies in found])
        np.savez(cache, rows=rows, seconds_each=seconds_each, names=list(found[0]), values=values)
    with np.load(cache, allow_pickle=False) as file:
        columns = dict(zip(map(str, file["names"]), file["values"].T, strict=True))
        return file["rows"], columns, float(file["seconds_each"])
