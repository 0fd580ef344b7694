import pytest

from search_spaces.cell_graph import CellGraph


def test_inputs_and_outputs_are_the_nodes_that_no_edge_enters_or_leaves():
    graph = CellGraph(((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), ("skip_connect", "conv"))
    assert graph.inputs == {0, 1}
    assert graph.outputs == {3}


def test_names_tell_what_carries_nothing_and_what_changes_nothing():
    graph = CellGraph(((0, 1),), ("none", "Identity", "nor_conv_3x3"))
    assert [graph.is_zero(value) for value in range(3)] == [True, False, False]
    assert [graph.is_identity(value) for value in range(3)] == [False, True, False]


def test_an_edge_backwards_is_refused():
    with pytest.raises(ValueError, match=r"edges must go from a smaller node to a larger one, got \(2, 1\)"):
        CellGraph(((0, 1), (2, 1)), ("conv",))
