import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latency.counting.complexity import count_model
from latency.counting.mac_formulas import MAC_FORMULAS
from latency.counting.other_operations import OTHER_OPERATIONS, WITHOUT_OPERATIONS
from tests.latency.functions import Function


@pytest.mark.parametrize(
    ("layer", "operations"),
    [
        (nn.BatchNorm2d(4), {"normalisation": 2 * 256}),
        (nn.LayerNorm(8), {"normalisation": 7 * 256}),
        (nn.ReLU(inplace=True), {"activation": 256}),
        (nn.Hardswish(), {"activation": 256}),
        (nn.Softmax(1), {"softmax": 5 * 256}),
        (nn.MaxPool2d(2), {"pooling": 4 * 64}),
        (nn.AvgPool2d((3, 1), 1, (1, 0)), {"pooling": 3 * 256}),
        (nn.AdaptiveAvgPool2d(4), {"pooling": 256}),
        (nn.Upsample(scale_factor=2), {}),
        (nn.Upsample(scale_factor=2, mode="bilinear"), {"resize": 7 * 1024}),
        (nn.Upsample(scale_factor=2, mode="bicubic"), {"resize": 31 * 1024}),
        (Function(lambda x: x + x * 2), {"elementwise": 512}),
        (Function(lambda x: x.mean((2, 3))), {"reduction": 256}),
        (Function(lambda x: x.cumsum(-1)), {"reduction": 256}),
        (Function(lambda x: torch.cat([x, F.pad(x, (1, 1, 0, 0))], dim=3).flatten()), {}),
        (nn.Conv2d(4, 2, 3), {}),
    ],
)
def test_closed_forms_on_an_image_of_4_x_8_x_8(layer, operations):
    complexity = count_model(layer.eval(), (4, 8, 8)).require_complete()
    assert complexity.other_operations == operations
    assert complexity.n_other_operations == sum(operations.values())
    assert not complexity.is_partial


def test_operations_by_module_sum_to_those_by_kind():
    model = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))).eval()
    complexity = count_model(model, (4, 8, 8))
    assert complexity.other_operations_by_module == {"1": 256, "2.0": 128, "2.1": 128}
    assert complexity.other_operations == {"normalisation": 256, "activation": 128, "pooling": 128}
    assert complexity.n_macs == 8 * 64


def test_no_operator_stands_in_two_tables():
    tables = [set(MAC_FORMULAS), set(OTHER_OPERATIONS), set(WITHOUT_OPERATIONS)]
    assert sum(map(len, tables)) == len(set.union(*tables))


def test_a_partial_count_is_marked():
    complexity = count_model(nn.Sequential(nn.ReLU(), Function(torch.special.i1)).eval(), (4, 8, 8))
    assert (complexity.is_partial, complexity.n_other_operations) == (True, 256)
