"""What a predictor of trained metrics is given of a genotype: genes, operations, and the paths of its cell."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.predictors.cell_features import CellFeatures
from search_spaces.base import SearchSpace
from search_spaces.genotype import Gene, GeneKind, Genotype

_MANY_VALUES = 12  # of a gene, beyond which a column for each would take a training for each


@dataclass(frozen=True)
class FeatureGroups:
    """Features of several genotypes, by what they tell.

    Attributes:
        columns: By group, `(n, n_features)` float64: `genes`, `operations` and, for a cell with a graph, `paths`
            and `flow`.
    """

    columns: Mapping[str, np.ndarray]

    @property
    def matrix(self) -> np.ndarray:
        """`(n, n_features)`: all groups side by side."""
        return np.hstack(list(self.columns.values()))

    def __len__(self) -> int:
        """How many genotypes."""
        return len(next(iter(self.columns.values())))

    def take(self, rows: np.ndarray | slice) -> "FeatureGroups":
        """Return the features of some of the genotypes."""
        return FeatureGroups({name: columns[rows] for name, columns in self.columns.items()})


class FeatureEncoder:
    """Turns genotypes of one space into features.

    Genes of a cell's edges that carry nothing from input to output are encoded as carrying nothing, whatever
    their values, so that cells which compute the same look the same.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._genes = space.genes
        graph = space.cell_graph
        self._n_edges = len(graph.edges) if graph else 0
        self._cell = CellFeatures(graph) if graph else None
        self._counted = [index for index, gene in enumerate(self._genes) if not _is_unmarked_number(gene)]
        counted = [self._genes[index] for index in self._counted]
        self._operations = sorted({choice for gene in counted for choice in gene.choices})
        self._counts_operations = any(a.choices == b.choices for a, b in itertools.combinations(counted, 2))

    def encode(self, genotypes: Sequence[Genotype]) -> FeatureGroups:
        """Return the features of `genotypes`, in their order."""
        values = np.array([genotype.genes for genotype in genotypes], dtype=np.int64).reshape(-1, len(self._genes))
        live, edges = np.ones(values.shape, dtype=bool), values[:, : self._n_edges]
        if self._cell:
            live[:, : self._n_edges] = self._cell.live(edges)
        groups = {"genes": self._one_hot(values, live), "operations": self._operation_counts(values, live)}
        if self._cell:
            groups |= {"paths": self._cell.paths(edges), "flow": self._cell.flow(edges)}
        return FeatureGroups({name: columns for name, columns in groups.items() if columns.shape[1]})

    def _one_hot(self, values: np.ndarray, live: np.ndarray) -> np.ndarray:
        columns = []
        for index, gene in enumerate(self._genes):
            if gene.kind is GeneKind.ORDINAL or _is_unmarked_number(gene):
                columns.append(np.where(live[:, index], values[:, index] / max(gene.n_values - 1, 1), 0.0))
            else:
                columns += [(values[:, index] == choice) & live[:, index] for choice in range(gene.n_values)]
        return np.column_stack(columns).astype(np.float64)

    def _operation_counts(self, values: np.ndarray, live: np.ndarray) -> np.ndarray:
        """Return how many genes hold each choice, where genes share choices; none otherwise."""
        if not self._counts_operations:
            return np.zeros((len(values), 0))
        counts = np.zeros((len(values), len(self._operations)))
        for index in self._counted:
            for value, choice in enumerate(self._genes[index].choices):
                counts[:, self._operations.index(choice)] += (values[:, index] == value) & live[:, index]
        return counts


def _is_unmarked_number(gene: Gene) -> bool:
    """Return whether a gene has so many values, all of them named by integers, that it must be a number."""
    return gene.n_values > _MANY_VALUES and all(choice.isdigit() for choice in gene.choices)
