import itertools

import numpy as np
import pytest

from nas.predictors.cell_features import CellFeatures
from search_spaces.cell_graph import CellGraph
from search_spaces.spaces.nasbench201 import NASBENCH201_EDGES, NASBENCH201_OPERATIONS, NasBench201, live_edges

NONE, SKIP, CONV1, CONV3, POOL = range(5)
STEPS = (CONV1, CONV3, POOL)
CELL = CellFeatures(CellGraph(NASBENCH201_EDGES, NASBENCH201_OPERATIONS))
RANDOM = np.random.default_rng(0).integers(0, 5, (100, 6))


def walk(genes, node=0):
    """Yield the operations of each path from `node` to the output that change data."""
    if node == 3:
        yield ()
    for (source, target), value in zip(NASBENCH201_EDGES, genes, strict=True):
        if source == node and value != NONE:
            for rest in walk(genes, target):
                yield ((value,) if value != SKIP else ()) + rest


def test_live_edges_are_those_that_the_network_is_built_of():
    space = NasBench201()
    cells = list(itertools.product((NONE, CONV3), repeat=6))
    for genes, live in zip(cells, CELL.live(np.array(cells)), strict=True):
        built = {NASBENCH201_EDGES[edge] for edge in np.flatnonzero(live)}
        assert built == live_edges(space.genotype(genes)).keys()


def test_paths_are_those_that_a_walk_finds():
    for genes, found in zip(RANDOM.tolist(), CELL.paths(RANDOM), strict=True):
        paths = list(walk(genes))
        expected = []
        for size in range(4):
            for subset in itertools.combinations(STEPS, size):
                lengths = [len(path) for path in paths if set(path) <= set(subset)]
                expected += [len(lengths), max(lengths, default=0)]
        for operations in (*((step,) for step in STEPS), STEPS):
            amounts = [sum(value in operations for value in path) for path in paths] or [0]
            expected += [max(amounts), min(amounts), np.mean(amounts)]
        assert found == pytest.approx(expected)


def test_what_flows_is_equal_for_cells_that_treat_data_alike_and_no_others():
    text = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
    space = NasBench201()
    cells = [
        text.format("nor_conv_3x3", "none", "none", "none", "avg_pool_3x3", "none"),  # by node 1
        text.format("none", "nor_conv_3x3", "nor_conv_1x1", "none", "none", "avg_pool_3x3"),  # by node 2; node 1 dead
        text.format("avg_pool_3x3", "none", "none", "none", "nor_conv_3x3", "none"),  # the other way round
    ]
    flow = CELL.flow(np.array([space.from_string(cell).genes for cell in cells]))
    np.testing.assert_allclose(flow[0], flow[1])
    assert np.abs(flow[0] - flow[2]).max() > 0.1


def test_identities_pass_on_and_what_arrives_is_summed():
    direct, twice, dead = (0, 0, 0, SKIP, 0, 0), (SKIP, 0, 0, SKIP, SKIP, 0), (0,) * 6
    flow = CELL.flow(np.array([direct, twice, dead]))
    np.testing.assert_allclose(flow[1], 2 * flow[0])
    assert not flow[2].any()


def test_a_cell_with_two_inputs():
    cell = CellFeatures(CellGraph(((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), ("skip_connect", "conv")))
    # Paths 0-2-3 and 1-3 with a conv each and more; columns: no conv: number, length; any: number, length; conv counts.
    assert cell.paths(np.array([[1, 0, 0, 1, 1]])).tolist() == [[1, 0, 4, 2, 2, 0, 1, 2, 0, 1]]
    assert cell.live(np.array([[1, 0, 0, 1, 1]])).all()


def test_a_graph_with_too_many_paths_is_described_by_its_flow_alone():
    edges = tuple(itertools.combinations(range(11), 2))  # 2**9 paths
    cell = CellFeatures(CellGraph(edges, ("none", "skip", "conv")))
    values = np.random.default_rng(0).integers(0, 3, (5, len(edges)))
    assert cell.paths(values).shape == (5, 0)
    assert np.isfinite(cell.flow(values)).all()
