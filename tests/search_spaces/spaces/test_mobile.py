"""Mobile networks: published ones are met to the last parameter, and all others build, train and export."""

import numpy as np
import pytest
import torch

from latency.counting.complexity import count_model
from latency.graph.onnx_writer import write_onnx
from latency.graph.tracer import graph_from_torch
from search_spaces import Mobile
from search_spaces.blocks.inverted_residual import divisible
from search_spaces.spaces.mobile import MobileStage
from search_spaces.spaces.mobile_presets import PRESETS

# Parameters as the reference implementations count them; multiply-adds in convolutions and linear layers at 224 pixels,
# in millions as the papers give them.
PUBLISHED = {
    "mobilenet_v2": (3_504_872, 300),
    "mnasnet_a1": (3_887_038, 312),
    "mobilenet_v3_large": (5_483_032, 217),
    "proxyless_mobile": (4_080_512, 320),
}
SPACE = Mobile()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_has_the_published_counts(name):
    space, genotype = Mobile.preset(name)
    model = space.build(genotype, in_channels=3, n_classes=1000, seed=0).eval()
    counted = count_model(model, (3, 224, 224)).require_complete()
    n_params, n_millions = PUBLISHED[name]
    assert counted.n_params == n_params
    assert round(counted.n_macs / 1e6) == pytest.approx(n_millions, abs=1)
    assert space.n_genotypes > 10**6


def test_an_unknown_preset_is_refused_by_the_known_names():
    assert PRESETS.keys() == PUBLISHED.keys()
    with pytest.raises(ValueError, match=r"name must be one of mobilenet_v2, .*, got 'mobilenet'"):
        Mobile.preset("mobilenet")


@pytest.mark.parametrize(("width", "expected"), [(3, 8), (12, 16), (60, 64), (184.2, 184), (91, 88), (17, 16)])
def test_widths_are_rounded_to_eight_but_never_below_nine_tenths(width, expected):
    assert divisible(width) == expected


def test_a_skip_that_can_add_nothing_is_not_told_apart():
    space = Mobile(stages=(MobileStage(widths=(16, 24), stride=2, depths=(1, 2)),))
    skip = [gene.name for gene in space.genes].index("stage0_skip")
    depth = [gene.name for gene in space.genes].index("stage0_depth")
    values = [0] * len(space.genes)
    values[skip] = 1
    assert space.canonical(space.genotype(values)).genes[skip] == 0
    values[depth] = 1  # the second block adds its input
    assert space.canonical(space.genotype(values)).genes[skip] == 1


@pytest.mark.parametrize("stem_width", [8, 16, 32])
def test_one_block_can_add_its_input_at_equal_width_alone(stem_width):
    space = Mobile(stages=(MobileStage(widths=(16,), stride=1, depths=(1, 2)),), stem_width=stem_width)
    index = {gene.name: place for place, gene in enumerate(space.genes)}
    values = [0] * len(space.genes)
    values[index["stage0_skip"]] = 1
    kept = space.canonical(space.genotype(values)).genes[index["stage0_skip"]]
    assert kept == (stem_width == 16)


def test_a_stride_of_one_at_equal_width_adds_its_input():
    space = Mobile(stages=(MobileStage(widths=(16, 24), stride=1, depths=(1, 2)),), stem_width=16)
    index = {gene.name: place for place, gene in enumerate(space.genes)}
    values = [0] * len(space.genes)
    values[index["stage0_skip"]] = 1
    assert space.canonical(space.genotype(values)).genes == tuple(values)
    with_skip, without = (
        space.build(space.genotype(genes), in_channels=1, n_classes=3, seed=0).eval()
        for genes in ([0] * len(values), values)
    )
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(with_skip(image), without(image))


def test_a_resolution_resizes_the_batch_within_the_network():
    space = Mobile(resolutions=(16, 32))
    small, large = (space.genotype([*[0] * (len(space.genes) - 1), value]) for value in (0, 1))
    macs = [
        count_model(space.build(g, in_channels=1, n_classes=3, seed=0).eval(), (1, 28, 28)).n_macs
        for g in (small, large)
    ]
    assert macs[1] == pytest.approx(4 * macs[0], rel=0.1)
    assert space.describe(small).startswith("16 px | 1x(k3 e3 w12 relu6) | ")
    fixed = Mobile(resolutions=(16,))
    assert "resolution" not in [gene.name for gene in fixed.genes]
    assert fixed.describe(fixed.genotype([0] * len(fixed.genes))).startswith("16 px | ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": (8,), "stem_stride": 2}, "resolutions must be at least 16"),
        ({"resolutions": (32, 32)}, "resolutions must name each choice once"),
        ({"stages": ()}, "stages"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Mobile(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (8,), "kernels": (3, 4)}, "kernels must be odd, got 4"),
        ({"widths": (8, 8)}, "widths must name each choice once"),
        ({"widths": ()}, "widths"),
        ({"widths": (8,), "activations": ("gelu",)}, "activations"),
    ],
)
def test_a_faulty_stage_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MobileStage(**options)


def built(n, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        genotype = SPACE.sample(rng)
        yield SPACE.build(genotype, in_channels=1, n_classes=10, seed=0).eval()


@pytest.mark.parametrize("n", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_networks_build_and_trace(n):
    for model in built(n, 0):
        assert graph_from_torch(model, (1, 28, 28)).operators


@pytest.mark.parametrize("n", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_random_networks_export_and_pass_the_numerical_check(n, tmp_path):
    for model in built(n, 1):
        assert write_onnx(model, (1, 28, 28), tmp_path / "model.onnx").max_difference <= 1e-4
