import itertools

import numpy as np
import pytest

from search_spaces.cell_graph import CellGraph
from search_spaces.nasbench201 import NASBENCH201_EDGES, NASBENCH201_OPERATIONS, NasBench201, live_edges

NONE, SKIP, CONV1, CONV3, POOL = range(5)
GRAPH = CellGraph(NASBENCH201_EDGES, NASBENCH201_OPERATIONS)


def walk(genes, node=0):
    """Yield the operations of each path from `node` to the output, step by step."""
    if node == 3:
        yield ()
    for (source, target), value in zip(NASBENCH201_EDGES, genes, strict=True):
        if source == node and value != NONE:
            for rest in walk(genes, target):
                yield ((value,) if value != SKIP else ()) + rest


def test_counts_the_paths_that_a_walk_finds():
    rng = np.random.default_rng(0)
    for genes in rng.integers(0, 5, (200, 6)).tolist():
        expected = list(walk(genes))
        counts = GRAPH.path_counts(genes)
        assert counts.total() == len(expected)
        assert all(counts[sequence] == expected.count(sequence) for sequence in expected)


def test_live_edges_are_those_that_the_network_is_built_of():
    space = NasBench201()
    for genes in itertools.product((NONE, CONV3), repeat=6):
        live = {NASBENCH201_EDGES[edge] for edge in GRAPH.live_edges(genes)}
        assert live == live_edges(space.genotype(genes)).keys()


def test_a_cell_with_two_inputs_and_one_output():
    graph = CellGraph(((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), ("skip_connect", "conv"))
    assert graph.inputs == {0, 1}
    assert graph.outputs == {3}
    assert graph.path_counts((1, 0, 0, 1, 1)) == {(1, 1): 1, (1,): 2, (): 1}


def test_an_edge_backwards_is_refused():
    with pytest.raises(ValueError, match=r"edges must go from a smaller node to a larger one, got \(2, 1\)"):
        CellGraph(((0, 1), (2, 1)), ("conv",))
