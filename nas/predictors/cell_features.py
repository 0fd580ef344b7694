"""What a cell's graph tells of it: what carries data, along which paths, and what becomes of data on its way."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from search_spaces.cell_graph import CellGraph

_MAX_PATHS = 256  # of the graph; beyond, paths are left alone
_MAX_SUBSETS = 64  # of operations; beyond, only the smallest and the largest subsets are looked at
_FLOW_WIDTH = 96  # numbers that flow along an edge
_COMMON_SHARE = 0.5  # of an operation's weights that all operations share: each changes its input, whatever it is
_FLOW_SEED = 0


class CellFeatures:
    """Computes features of cells from the operations on the edges of one graph.

    Isomorphic cells, whose nodes are numbered differently, have equal features: all of them are sums over paths or
    follow the data. Edges that carry nothing from an input to an output have no influence.
    """

    def __init__(self, graph: CellGraph) -> None:
        self._graph = graph
        values = range(len(graph.operations))
        self._carrying = np.array([not graph.is_zero(value) for value in values])
        self._steps = [value for value in values if self._carrying[value] and not graph.is_identity(value)]
        self._paths = list(itertools.islice(_paths(graph), _MAX_PATHS + 1))
        self._has_paths = len(self._paths) <= _MAX_PATHS
        self._subsets = _subsets(self._steps)

    def live(self, values: np.ndarray) -> np.ndarray:
        """Return `(n, n_edges)`: whether each edge carries something from an input to an output.

        Args:
            values: `(n, n_edges)`: the operation of each edge, an index into the graph's operations.
        """
        edges, carries = self._graph.edges, self._carrying[values]
        n_nodes = max(target for _, target in edges) + 1
        fed, used = (np.zeros((len(values), n_nodes), dtype=bool) for _ in range(2))
        fed[:, list(self._graph.inputs)] = used[:, list(self._graph.outputs)] = True
        for edge in sorted(range(len(edges)), key=lambda e: edges[e]):
            source, target = edges[edge]
            fed[:, target] |= fed[:, source] & carries[:, edge]
        for edge in sorted(range(len(edges)), key=lambda e: edges[e][1], reverse=True):
            source, target = edges[edge]
            used[:, source] |= used[:, target] & carries[:, edge]
        sources, targets = np.array(edges).T
        return np.asarray(carries & fed[:, sources] & used[:, targets])

    def paths(self, values: np.ndarray) -> np.ndarray:
        """Return `(n, n_features)`: how many paths there are, and how long, by the operations that they keep to.

        For every subset of the operations that change data: how many paths use no others, and the most such
        operations on one of them. For every operation, and for all together: the most, the fewest and the mean number
        on a path. No columns for a graph with too many paths.

        Args:
            values: As for `live`.
        """
        if not self._has_paths:
            return np.zeros((len(values), 0))
        counts = np.stack([self._counts(values[:, path]) for path in self._paths], axis=1)  # (n, n_paths, n_steps)
        alive = np.stack([self._carrying[values[:, path]].all(axis=1) for path in self._paths], axis=1)
        lengths = counts.sum(axis=2)
        columns = []
        for subset in self._subsets:
            others = [index for index in range(len(self._steps)) if index not in subset]
            keeps = alive & (counts[:, :, others].sum(axis=2) == 0)
            columns += [keeps.sum(axis=1), np.where(keeps, lengths, 0).max(axis=1)]
        n_alive = np.maximum(alive.sum(axis=1), 1)
        for amounts in (*np.moveaxis(counts, 2, 0), lengths):
            most = np.where(alive, amounts, 0).max(axis=1)
            fewest = np.minimum(np.where(alive, amounts, len(self._graph.edges)).min(axis=1), most)  # 0 without paths
            columns += [most, fewest, (alive * amounts).sum(axis=1) / n_alive]
        return np.column_stack(columns).astype(np.float64)

    def flow(self, values: np.ndarray) -> np.ndarray:
        """Return `(n, n_features)`: what reaches the outputs of a graph network with fixed random weights.

        Each node sums what arrives; each operation is a layer of its own, the same wherever it stands; identities pass
        on what they read. Cells that treat data alike come out alike.

        Args:
            values: As for `live`.

        Source:
            Ning et al. 2020, GATES, arXiv:2004.01899, for the flow; Gallicchio & Micheli 2020, arXiv:1911.08941, for
            leaving the weights random: what is learned is learned on top.
        """
        rng = np.random.default_rng(_FLOW_SEED)
        common = rng.normal(size=(_FLOW_WIDTH, _FLOW_WIDTH))
        n_nodes = max(target for _, target in self._graph.edges) + 1
        states = np.zeros((n_nodes, len(values), _FLOW_WIDTH))
        for node in sorted(self._graph.inputs):
            states[node] = rng.normal(size=_FLOW_WIDTH)
        layers = {}
        for value in self._steps:
            own = rng.normal(size=(_FLOW_WIDTH, _FLOW_WIDTH))
            weights = np.sqrt(_COMMON_SHARE) * common + np.sqrt(1 - _COMMON_SHARE) * own
            layers[value] = weights / np.sqrt(_FLOW_WIDTH), 0.3 * rng.normal(size=_FLOW_WIDTH)
        live = self.live(values)
        for edge in sorted(range(len(self._graph.edges)), key=lambda e: self._graph.edges[e]):
            source, target = self._graph.edges[edge]
            for value in np.flatnonzero(self._carrying).tolist():
                rows = np.flatnonzero(live[:, edge] & (values[:, edge] == value))
                read = states[source, rows]
                if value in layers:
                    weights, bias = layers[value]
                    read = np.tanh(read @ weights + bias)
                states[target, rows] += read
        return np.hstack([states[node] for node in sorted(self._graph.outputs)])

    def _counts(self, values: np.ndarray) -> np.ndarray:
        """Return `(n, n_steps)`: how many of `values`, `(n, length)`, are each operation that changes data."""
        return np.stack([(values == step).sum(axis=1) for step in self._steps], axis=1).reshape(len(values), -1)


def _paths(graph: CellGraph) -> Iterable[list[int]]:
    """Yield the edges of each path from an input to an output."""
    unfinished = [([edge], target) for edge, (source, target) in enumerate(graph.edges) if source in graph.inputs]
    while unfinished:
        path, node = unfinished.pop()
        if node in graph.outputs:
            yield path
        unfinished += [([*path, edge], target) for edge, (source, target) in enumerate(graph.edges) if source == node]


def _subsets(steps: Sequence[int]) -> list[tuple[int, ...]]:
    """Return subsets of the indices of `steps`: all of them, or those that differ least from none and from all."""
    n = len(steps)
    sizes = range(n + 1) if 2**n <= _MAX_SUBSETS else sorted({0, 1, n - 1, n})
    return [subset for size in sizes for subset in itertools.combinations(range(n), size)]
