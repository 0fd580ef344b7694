import numpy as np
import pytest

from search_spaces import GenotypeError, Tabular
from search_spaces.errors import SearchSpaceError
from search_spaces.genotype import GeneKind

OPS = np.array([[0, 1, 2], [2, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=np.int8)


def write(path, **arrays):
    np.savez(path, **{"ops": OPS, **arrays})
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "table.npz", accuracy=np.array([90.0, 80.0, 10.0, 70.0]), cost=np.array([4, 3, 0, 2]))


def test_every_row_is_a_genotype_and_no_other(path):
    space = Tabular(path)
    assert [genotype.genes for genotype in space.enumerate()] == [(0, 0, 0), (0, 1, 2), (1, 1, 1), (2, 1, 0)]
    assert space.n_genotypes == 4
    assert [space.row(space.genotype(values)) for values in OPS] == [0, 1, 2, 3]
    assert {space.sample(np.random.default_rng(seed)).genes for seed in range(40)} == set(map(tuple, OPS.tolist()))
    with pytest.raises(GenotypeError, match=r"no row of .*table.npz has the genes \[0, 0, 1\]; nearest\(\) finds one"):
        space.genotype([0, 0, 1])


def test_nearest_changes_the_fewest_genes_then_takes_the_smallest_steps(path):
    space = Tabular(path)
    assert space.nearest([2, 1, 0]).genes == (2, 1, 0)
    assert space.nearest([0, 0, 1]).genes == (0, 0, 0)
    assert space.nearest([1, 1, 2]).genes == (0, 1, 2)  # one gene from row 0 and row 3, one step each: the first
    with pytest.raises(GenotypeError):
        space.nearest([0, 0])


def test_rows_with_equal_operations_stay_apart(tmp_path):
    space = Tabular(write(tmp_path / "t.npz", ops=np.array([[0, 1], [1, 1], [0, 1]]), cost=np.array([1.0, 2.0, 3.0])))
    assert [gene.name for gene in space.genes] == ["op_0", "op_1", "repeat"]
    assert space.rows.tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert space.columns["cost"][space.row(space.genotype([0, 1, 1]))] == 3.0
    assert len({space.canonical(genotype) for genotype in space.enumerate()}) == 3


def test_columns_are_the_numbers_of_rows_and_nothing_else(tmp_path):
    extra = {"names": np.array(["a", "b", "c", "d"]), "note": np.array([1.0, 2.0]), "hidden": np.array([{}], object)}
    space = Tabular(write(tmp_path / "t.npz", accuracy=np.arange(4), **extra))
    assert {name: column.tolist() for name, column in space.columns.items()} == {"accuracy": [0.0, 1.0, 2.0, 3.0]}


def test_names_and_edges_give_genes_their_words_and_the_cell_its_graph(tmp_path):
    edges, names = np.array([[0, 1], [0, 2], [1, 2]]), np.array(["none", "skip", "conv"])
    space = Tabular(write(tmp_path / "t.npz", edges=edges, op_names=names))
    assert space.describe(space.genotype([0, 1, 2])) == "edge_0_1=none edge_0_2=skip edge_1_2=conv"
    assert space.cell_graph is not None
    assert space.cell_graph.edges == ((0, 1), (0, 2), (1, 2))
    assert [space.cell_graph.is_identity(value) for value in range(3)] == [False, True, False]


def test_the_fingerprint_follows_the_content_not_the_place(path, tmp_path):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(path.read_bytes())
    space, again = Tabular(path), Tabular(moved)
    other = Tabular(write(tmp_path / "other.npz", accuracy=np.zeros(4)))
    genotype = space.genotype([0, 0, 0])
    assert space.fingerprint(genotype) == again.fingerprint(genotype) != other.fingerprint(genotype)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ops": np.array([[0.5]])}, r"ops must be an \(n_rows, n_genes\) array of integers from 0 on"),
        ({"ops": np.array([[-1]])}, "ops must be"),
        ({"ops": np.zeros((0, 3), dtype=int)}, "ops must be"),
        ({"op_names": np.array(["none", "conv"])}, r"op_names must name the operations 0 .. 2"),
        ({"edges": np.array([[0, 1]])}, r"edges must be of shape \(3, 2\), got \(1, 2\)"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, arrays, message):
    with pytest.raises(SearchSpaceError, match=message):
        _ = Tabular(write(tmp_path / "t.npz", **arrays)).genes


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.npz").write_text("no table")
    with pytest.raises(SearchSpaceError, match=r"t.npz: cannot be read as an npz table"):
        _ = Tabular(tmp_path / "t.npz").genes


def test_costs_are_checked_columns(tmp_path):
    path = write(tmp_path / "t.npz", accuracy=np.array([1.0, np.nan, 3.0, 4.0]), cost=np.array([4, 3, 0, 2]))
    Tabular(path, costs=("cost",)).check()
    with pytest.raises(
        SearchSpaceError, match=r"costs must be columns of the table, got 'price'; known: accuracy, cost"
    ):
        Tabular(path, costs=("price",)).check()
    with pytest.raises(SearchSpaceError, match="a cost must be finite in every row; 'accuracy' is not in row 1"):
        Tabular(path, costs=("accuracy",)).check()


def test_variables_in_the_path_are_expanded(path, monkeypatch):
    monkeypatch.setenv("TABLES", str(path.parent))
    Tabular("$TABLES/table.npz").check()
    monkeypatch.delenv("TABLES")
    with pytest.raises(SearchSpaceError, match="no such table: .*names an environment variable that is not set"):
        Tabular("$TABLES/table.npz").check()


@pytest.mark.parametrize(
    "marked",
    [np.array([False, True, False]), np.array([0, 1, 0]), np.array(["op_1"]), np.array([b"op_1"])],
    ids=["booleans", "integers", "names", "bytes"],
)
def test_a_table_says_which_genes_are_numbers(tmp_path, marked):
    path = write(tmp_path / "t.npz", ordinal=marked, cost=np.arange(4.0))
    space = Tabular(path)
    assert [gene.kind for gene in space.genes] == [GeneKind.CATEGORICAL, GeneKind.ORDINAL, GeneKind.CATEGORICAL]
    assert list(space.columns) == ["cost"]
    assert {gene.kind for gene in Tabular(path, ordinal=True).genes} == {GeneKind.ORDINAL}


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        (np.array([True]), r"ordinal must say of each of the 3 genes .* got an array of shape \(1,\)"),
        (np.array([[True, False, True]]), r"got an array of shape \(1, 3\)"),
        (np.array([0.0, 0.5, 1.0]), "must hold true and false, or names"),
        (np.array(["op_1", "op_9"]), "ordinal names no genes: op_9; known: op_0, op_1, op_2"),
    ],
)
def test_a_wrong_mark_of_numbers_is_refused(tmp_path, marked, message):
    with pytest.raises(SearchSpaceError, match=message):
        Tabular(write(tmp_path / "t.npz", ordinal=marked, cost=np.arange(4.0))).genes  # noqa: B018 - reads the file
