"""The spaces' networks export with a dynamic batch and compute the same in onnxruntime."""

import numpy as np
import pytest

from latency.onnx_graph import write_onnx
from search_spaces import NasBench201, SegmentationCell

SPACES = {
    "nasbench201": (NasBench201(width=4, cells_per_stage=1), (1, 28, 28)),
    "segmentation_cell": (
        SegmentationCell(n_cells=2, n_branches=2, decoder_widths=(8, 16), encoder_width=8),
        (3, 32, 32),
    ),
}


def exports(kind, genotypes, folder):
    space, shape = SPACES[kind]
    for genotype in genotypes:
        model = space.build(genotype, in_channels=shape[0], n_classes=5, seed=0).eval()
        assert write_onnx(model, shape, folder / "model.onnx").max_difference <= 1e-4


@pytest.mark.parametrize("kind", SPACES)
def test_a_sampled_network_exports(kind, tmp_path):
    exports(kind, [SPACES[kind][0].sample(np.random.default_rng(0))], tmp_path)


@pytest.mark.parametrize("kind", SPACES)
def test_a_network_of_nothing_exports(kind, tmp_path):
    space, _ = SPACES[kind]
    exports(kind, [space.genotype([0] * len(space.genes))], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPACES)
def test_twenty_sampled_networks_export(kind, tmp_path):
    rng = np.random.default_rng(1)
    exports(kind, [SPACES[kind][0].sample(rng) for _ in range(20)], tmp_path)
