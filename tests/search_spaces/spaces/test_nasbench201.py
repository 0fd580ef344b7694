import os
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces import GenotypeError, NasBench201
from search_spaces.spaces.nasbench201 import NASBENCH201_EDGES, NASBENCH201_OPERATIONS, live_edges

SPACE = NasBench201()
SMALL = NasBench201(width=4, cells_per_stage=1)


def genotype(*values):
    return SPACE.genotype(values)


def n_params(model):
    return sum(parameter.numel() for parameter in model.parameters())


def expressions(values):
    """What each node computes, as a sum of terms in which zeros are left out; slow and independent."""
    nodes, edges = {0: ["x"]}, {}
    for target in (1, 2, 3):
        terms = []
        for (source, end), value in zip(NASBENCH201_EDGES, values, strict=True):
            if end != target or value == 0 or not nodes[source]:
                continue
            edges[source, end] = f"({'+'.join(nodes[source])})@{value}"
            terms += nodes[source] if value == 1 else [edges[source, end]]
        nodes[target] = sorted(terms)
    return "+".join(nodes[3]), edges


def give_weights_by_expression(model, values):
    """Draw each operation's weights from what it computes, so that equal terms get equal weights."""
    _, edges = expressions(values)
    for name, module in model.named_modules():
        *_, edge = name.split(".")
        if edge.startswith("edge_"):
            source, target = map(int, edge.split("_")[1:])
            generator = torch.Generator().manual_seed(zlib.crc32(edges[source, target].encode()))
            for parameter in module.parameters():
                nn.init.normal_(parameter, generator=generator)


@pytest.fixture(scope="module")
def classes():
    members = defaultdict(list)
    for each in SPACE.enumerate():
        members[SPACE.canonical(each)].append(each)
    return members


@pytest.fixture(scope="module")
def table():
    if "NAS_DATA_ROOT" not in os.environ:
        pytest.skip("NAS_DATA_ROOT is not set")
    with np.load(Path(os.environ["NAS_DATA_ROOT"]) / "nasbench201" / "nasbench201_cifar10.npz") as file:
        return {key: file[key] for key in ("ops", "arch_str", "unique_str", "params_m_cifar10_analytic")}


def test_has_15625_genotypes_of_categorical_genes():
    assert SPACE.n_genotypes == 15_625
    assert [gene.name for gene in SPACE.genes] == [
        "edge_0_1", "edge_0_2", "edge_1_2", "edge_0_3", "edge_1_3", "edge_2_3"
    ]  # fmt: skip
    assert {gene.choices for gene in SPACE.genes} == {NASBENCH201_OPERATIONS}


def test_has_the_6466_classes_of_the_literature_which_compute_4930_functions(classes):
    assert len(classes) == 6_466
    assert len({expressions(each.genes)[0] for each in classes}) == 4_930


def test_representatives_are_smallest_and_members_compute_the_same(classes):
    for representative, members in classes.items():
        assert representative.genes == min(member.genes for member in members)
        assert len({expressions(member.genes)[0] for member in members}) == 1


def live_convolutions(each):
    return sorted(name for name in live_edges(each).values() if name.startswith("nor_conv"))


def test_published_classes_merge_an_operation_read_twice_with_two_equal_ones(classes):
    one_read_twice = genotype(3, 0, 1, 0, 1, 1)
    two_equal = genotype(3, 3, 0, 0, 1, 1)
    assert SPACE.canonical(one_read_twice) == SPACE.canonical(two_equal)
    assert live_convolutions(one_read_twice) == ["nor_conv_3x3"]
    assert live_convolutions(two_equal) == ["nor_conv_3x3", "nor_conv_3x3"]
    differing = [m for m in classes.values() if len({tuple(live_convolutions(each)) for each in m}) > 1]
    assert len(differing) == 430


def test_members_of_a_class_compute_the_same_and_have_equal_parameters_for_equal_operations(classes):
    rng = np.random.default_rng(0)
    groups = [members for members in classes.values() if len(members) > 1]
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for index in rng.choice(len(groups), 25, replace=False):
        members = groups[index]
        pair = [members[0], members[rng.integers(1, len(members))]]
        models = [SMALL.build(each, in_channels=3, n_classes=4, seed=0).double().eval() for each in pair]
        same_operations = live_convolutions(pair[0]) == live_convolutions(pair[1])
        assert (n_params(models[0]) == n_params(models[1])) == same_operations
        outputs = []
        for model, each in zip(models, pair, strict=True):
            for part, seed in ((model.features[0], 1), (model.features[3], 2), (model.features[5], 3)):
                for parameter in part.parameters():
                    nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(seed))
            for parameter in model.classifier.parameters():
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(4))
            give_weights_by_expression(model, each.genes)
            with torch.no_grad():
                outputs.append(model(images))
        torch.testing.assert_close(outputs[0], outputs[1])


@pytest.mark.parametrize(
    ("values", "live"),
    [
        ((0, 0, 0, 0, 0, 0), {}),
        ((3, 0, 0, 0, 0, 3), {}),  # one dead end, one that reads nothing
        ((3, 3, 3, 1, 0, 0), {(0, 3)}),
        ((0, 2, 3, 0, 3, 4), {(0, 2), (2, 3)}),
        ((1, 0, 2, 0, 0, 3), {(0, 1), (1, 2), (2, 3)}),
        ((3, 3, 3, 3, 3, 3), set(NASBENCH201_EDGES)),
    ],
)
def test_only_edges_from_input_to_output_are_built(values, live):
    assert live_edges(genotype(*values)).keys() == set(live)
    cell = SMALL.build(genotype(*values), in_channels=3, n_classes=2, seed=0).features[2]
    assert set(cell.operations) == {f"edge_{source}_{target}" for source, target in live}


def test_cell_computes_the_published_sum():
    values = (3, 2, 4, 1, 0, 3)
    cell = SMALL.build(genotype(*values), in_channels=3, n_classes=2, seed=0).features[2].eval()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    operation = cell.operations
    node_1 = operation["edge_0_1"](x)
    node_2 = operation["edge_0_2"](x) + operation["edge_1_2"](node_1)
    torch.testing.assert_close(cell(x), x + operation["edge_2_3"](node_2))


def test_a_zero_cell_trains_to_constant_logits():
    model = SMALL.build(genotype(0, 0, 0, 0, 0, 0), in_channels=1, n_classes=3, seed=0)
    torch.nn.functional.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.tensor([0, 1, 2, 0])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with torch.no_grad():
        logits = model.eval()(torch.randn(4, 1, 8, 8))
    assert torch.equal(logits, logits[:1].expand(4, 3))


# Dong & Yang's network without any convolution in its cells, and with six 3x3 in each.
@pytest.mark.parametrize(("values", "expected"), [((1,) * 6, 73_306), ((3,) * 6, 1_531_546)])
def test_default_network_has_the_published_parameters(values, expected):
    assert n_params(SPACE.build(genotype(*values), in_channels=3, n_classes=10, seed=0)) == expected


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 5, 9)])
def test_takes_grey_and_colour_images_of_any_size(shape):
    model = SMALL.build(genotype(3, 0, 0, 0, 4, 1), in_channels=shape[0], n_classes=10, seed=0)
    assert model(torch.randn(2, *shape)).shape == (2, 10)


def test_string_has_the_published_form():
    assert SPACE.to_string(genotype(3, 1, 0, 2, 4, 3)) == (
        "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    )


def test_every_string_reads_back(classes):
    for each in classes:
        assert SPACE.from_string(SPACE.to_string(each)) == each


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 3 nodes joined by '+', got 1"),
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2 has 2 edges between '|', got 1"),
        ("|pool~0|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1: unknown operation 'pool'; known: none, skip"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "node 2: edge 0 must end in '~0', got 'none~1'"),
        ("|none~0|+|none~0|none|+|none~0|none~1|none~2|", "node 2: edge 1 must end in '~1', got 'none'"),
    ],
)
def test_a_faulty_string_is_refused_saying_where(text, message):
    with pytest.raises(GenotypeError) as caught:
        SPACE.from_string(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("option", ["width", "cells_per_stage"])
def test_options_are_checked(option):
    with pytest.raises(ValueError, match=rf"{option}\n +Input should be greater than or equal to 1 .*input_value=0"):
        NasBench201(**{option: 0})


@pytest.mark.realdata
def test_strings_and_classes_are_those_of_the_table(table):
    classes = {}
    for values, text, unique in zip(table["ops"], table["arch_str"], table["unique_str"], strict=True):
        each = genotype(*values)
        assert SPACE.to_string(each) == text
        assert classes.setdefault(SPACE.canonical(each), unique) == unique
    assert len(set(classes.values())) == len(classes) == 6_466


@pytest.mark.realdata
def test_parameters_are_those_of_the_table_less_the_convolutions_of_dead_edges(table):
    per_convolution = {kernel: sum(5 * (c * c * kernel**2 + 2 * c) for c in (16, 32, 64)) for kernel in (1, 3)}
    n_without_dead = 0
    for row in np.random.default_rng(0).choice(len(table["ops"]), 30, replace=False):
        values = table["ops"][row]
        live = live_edges(genotype(*values))
        dead = [
            {2: 1, 3: 3}[int(value)]
            for edge, value in zip(NASBENCH201_EDGES, values, strict=True)
            if edge not in live and value in {2, 3}
        ]
        n_without_dead += not dead
        built = n_params(SPACE.build(genotype(*values), in_channels=3, n_classes=10, seed=0))
        published = round(table["params_m_cifar10_analytic"][row] * 1e6)
        assert built + sum(per_convolution[kernel] for kernel in dead) == published
    assert n_without_dead >= 10
