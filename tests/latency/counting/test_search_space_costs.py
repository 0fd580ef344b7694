"""The networks of the search spaces: each is traced whole and agrees with torch's own counter."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from latency.counting.complexity import count_model
from latency.devices import TorchCpuDevice
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell

every_space = pytest.mark.parametrize("space", [NasBench201(), SegmentationCell()], ids=lambda s: s.name)


@every_space
def test_no_operator_is_without_a_formula(space):
    rng = np.random.default_rng(0)
    for _ in range(4):
        model = space.build(space.sample(rng), in_channels=3, n_classes=7, seed=0).eval()
        complexity = count_model(model, (3, 32, 32)).require_complete()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 32, 32))
        assert counter.get_total_flops() == 2 * complexity.n_macs
        assert complexity.n_params == sum(parameter.numel() for parameter in model.parameters())


@every_space
def test_peak_memory_is_repeatable(space):
    model = space.build(space.sample(np.random.default_rng(1)), in_channels=3, n_classes=7, seed=0).eval()
    device = TorchCpuDevice()
    assert len({device.measure_peak_memory(model, (3, 32, 32)).peak_bytes for _ in range(4)}) == 1
