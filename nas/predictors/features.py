"""What a predictor of trained metrics is given of a genotype: genes, operations, and the paths of its cell."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.base import SearchSpace
from search_spaces.cell_graph import CellGraph
from search_spaces.genotype import GeneKind, Genotype

_MAX_EDGES = 28  # all edges of 8 nodes; beyond, the paths are too many to count
_MAX_SEQUENCES = 160  # columns for sequences of operations


@dataclass(frozen=True)
class FeatureGroups:
    """Features of several genotypes, by what they tell.

    Attributes:
        columns: By group, `(n, n_features)` float64: `genes`, `operations` and, for a cell with a graph, `paths`.
    """

    columns: Mapping[str, np.ndarray]

    @property
    def matrix(self) -> np.ndarray:
        """`(n, n_features)`: all groups side by side."""
        return np.hstack(list(self.columns.values()))

    def take(self, rows: np.ndarray) -> "FeatureGroups":
        """Return the features of some of the genotypes."""
        return FeatureGroups({name: columns[rows] for name, columns in self.columns.items()})

    def stacked_on(self, other: "FeatureGroups") -> "FeatureGroups":
        """Return the features of the genotypes of `other`, then of these."""
        return FeatureGroups({name: np.vstack([other.columns[name], own]) for name, own in self.columns.items()})


class FeatureEncoder:
    """Turns genotypes of one space into features.

    Genes of a cell's edges that carry nothing from input to output are encoded as carrying nothing, whatever
    their values, so that cells which compute the same look the same.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._genes = space.genes
        graph = space.cell_graph
        self._graph = graph if graph is not None and len(graph.edges) <= _MAX_EDGES else None
        self._sequences = {s: column for column, s in enumerate(_sequences(self._graph))} if self._graph else {}
        self._operations = sorted({choice for gene in self._genes for choice in gene.choices})
        self._counts_operations = any(
            gene.choices == other.choices for gene, other in itertools.combinations(self._genes, 2)
        )

    def encode(self, genotypes: Sequence[Genotype]) -> FeatureGroups:
        """Return the features of `genotypes`, in their order."""
        live = [self._live(genotype.genes) for genotype in genotypes]
        groups = {"genes": self._one_hot(live), "operations": self._operation_counts(live)}
        if self._graph is not None:
            groups["paths"] = np.array([self._paths(self._graph, genotype.genes) for genotype in genotypes])
        return FeatureGroups({name: columns for name, columns in groups.items() if columns.shape[1]})

    def _live(self, genes: tuple[int, ...]) -> list[int | None]:
        """Return the genes, `None` for those of an edge that carries nothing."""
        if self._graph is None:
            return list(genes)
        live = set(self._graph.live_edges(genes))
        n_edges = len(self._graph.edges)
        return [value if index in live or index >= n_edges else None for index, value in enumerate(genes)]

    def _one_hot(self, live: Sequence[Sequence[int | None]]) -> np.ndarray:
        columns = []
        for index, gene in enumerate(self._genes):
            values = [row[index] for row in live]
            if gene.kind is GeneKind.ORDINAL:
                columns.append([(0 if value is None else value) / max(gene.n_values - 1, 1) for value in values])
            else:
                columns += [[float(value == choice) for value in values] for choice in range(gene.n_values)]
        return np.array(columns, dtype=np.float64).T

    def _operation_counts(self, live: Sequence[Sequence[int | None]]) -> np.ndarray:
        """Return how many genes hold each choice, where genes share choices; none otherwise."""
        if not self._counts_operations:
            return np.zeros((len(live), 0))
        counts = np.zeros((len(live), len(self._operations)))
        column = {name: index for index, name in enumerate(self._operations)}
        for row, values in enumerate(live):
            for gene, value in zip(self._genes, values, strict=True):
                if value is not None:
                    counts[row, column[gene.choices[value]]] += 1
        return counts

    def _paths(self, graph: CellGraph, genes: tuple[int, ...]) -> np.ndarray:
        """Return how many live paths apply each sequence, and the lengths and operations of the longest."""
        n_operations = len(graph.operations)
        counts = np.zeros(len(self._sequences) + 3 + n_operations)
        sequences, summary = counts[: len(self._sequences)], counts[len(self._sequences) :]
        paths = graph.path_counts(genes)
        for sequence, count in paths.items():
            if sequence in self._sequences:
                sequences[self._sequences[sequence]] = count
            for value in set(sequence):
                summary[3 + value] = max(summary[3 + value], sequence.count(value))
        n_paths = paths.total()
        if n_paths:
            summary[0] = n_paths
            summary[1] = max(len(sequence) for sequence in paths)
            summary[2] = sum(len(sequence) * count for sequence, count in paths.items()) / n_paths
        return counts


def _sequences(graph: CellGraph) -> list[tuple[int, ...]]:
    """Return the shortest sequences of operations that a path may apply, as many as there are columns for."""
    steps = [v for v in range(len(graph.operations)) if not graph.is_zero(v) and not graph.is_identity(v)]
    depth = len({target for _, target in graph.edges})
    found: list[tuple[int, ...]] = []
    for length in range(depth + 1):
        if len(found) + len(steps) ** length > _MAX_SEQUENCES:
            break
        found += itertools.product(steps, repeat=length)
    return found
