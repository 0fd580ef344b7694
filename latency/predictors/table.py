"""Encodings of the rows of a table: genes alone, with the names of the operations where the table has them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latency.predictors.base import Encodings

_FEW_VALUES = 12  # a gene with more is a number: a column for each value would take a reading for each
_SMOOTHNESS = 0.2  # of what an operation takes over its place, as a share of the network's depth
_CUTS = frozenset({"none", "zero", "zeroize"})  # operations whose result is empty, so that nothing is read through them
_FREE = frozenset({*_CUTS, "skip", "skip_connect", "identity", "id"})


@dataclass(frozen=True)
class TableEncoder:
    """Encodes rows of genes.

    Where all genes choose from the same operations, what a row takes is a sum over places: how often each operation
    occurs, what its name says of kernel, expansion and groups, and how much it takes at each place, neighbouring places
    alike. Genes of different kinds are numbers and choices.

    Attributes:
        n_values: Of each gene.
        op_names: Of the values, the same for all genes; empty where genes are of different kinds.
        edges: `(n_genes, 2)`, from which node to which each gene's operation leads; `None` for a chain.
    """

    n_values: tuple[int, ...]
    op_names: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "TableEncoder":
        """Return the encoder of a table's arrays: `ops`, and where it has them `op_names` and `edges`.

        Raises:
            ValueError: If an array has another form.
        """
        ops = _genes(arrays["ops"])
        n_values = tuple(int(most) + 1 for most in ops.max(axis=0))
        names = tuple(str(name) for name in arrays.get("op_names", ()))
        if names and len(names) < max(n_values):
            raise ValueError(f"op_names must name each of {max(n_values)} values of ops, got {len(names)} names")
        if not names and len(set(n_values)) == 1 and n_values[0] <= _FEW_VALUES:
            names = tuple(map(str, range(n_values[0])))
        edges = arrays.get("edges")
        if edges is not None and edges.shape != (ops.shape[1], 2):
            raise ValueError(f"edges must be of the shape {(ops.shape[1], 2)}, got {edges.shape}")
        pairs = None if edges is None else tuple((int(a), int(b)) for a, b in edges)
        return cls(n_values, names, pairs)

    def encode(self, ops: np.ndarray) -> Encodings:
        """Return the encodings of rows of genes, `(n, n_genes)` integers from 0."""
        genes = _genes(ops)
        groups = self._operations(genes) if self.op_names else self._numbers(genes)
        places = np.broadcast_to(np.linspace(0, 1, genes.shape[1]), genes.shape)
        values = _one_hot(genes, max(self.n_values)) if max(self.n_values) <= _FEW_VALUES else genes[..., None]
        tokens = np.concatenate([values, places[..., None]], axis=2).astype(np.float32)
        return Encodings(groups, tokens, np.full(len(genes), genes.shape[1]))

    def _numbers(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the groups of genes of different kinds."""
        values = genes / np.maximum(np.array(self.n_values) - 1, 1)
        few = [gene for gene, n in enumerate(self.n_values) if n <= _FEW_VALUES]
        choices = [_one_hot(genes[:, gene], self.n_values[gene]) for gene in few]
        products = np.einsum("ni,nj->nij", values, values)[:, *np.triu_indices(values.shape[1])]
        groups = {"costs": values, "products": products}
        return groups | ({"places": np.concatenate(choices, axis=1)} if few else {})

    def _operations(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the groups of genes that choose from the same operations."""
        n_ops = len(self.op_names)
        at_place = _one_hot(genes, n_ops).astype(np.float64)  # (n, place, operation)
        counts, words = at_place.sum(axis=1), _words(self.op_names)
        groups = {"operations": counts, "operations_squared": _squares(counts)}
        if words.shape[1]:
            groups["costs"] = counts @ words
        if self.edges is not None and any(name in _CUTS for name in self.op_names):
            groups["read"] = (at_place * self._is_read(genes)[..., None]).sum(axis=1)
        alike = np.concatenate([words, 0.5 * np.eye(n_ops)], axis=1)
        near = _smooth(genes.shape[1])
        groups["layers"] = np.einsum("npk,pq,kl->nql", at_place, near, alike, optimize=True).reshape(len(genes), -1)
        groups["places"] = at_place.reshape(len(genes), -1)
        return groups

    def _is_read(self, genes: np.ndarray) -> np.ndarray:
        """Return whether the output depends on what each gene's operation gives, `(n, n_genes)`."""
        edges = self.edges
        assert edges is not None  # noqa: S101 - asked where there are edges
        is_open = ~np.isin(genes, [value for value, name in enumerate(self.op_names) if name in _CUTS])
        last = max(target for _, target in edges)
        is_read = np.zeros((len(genes), last + 1), bool)
        is_read[:, last] = True
        for gene in sorted(range(len(edges)), key=lambda gene: -edges[gene][1]):
            source, target = edges[gene]
            is_read[:, source] |= is_read[:, target] & is_open[:, gene]
        return is_read[:, [target for _, target in edges]] & is_open


def _genes(ops: np.ndarray) -> np.ndarray:
    genes = np.asarray(ops)
    if genes.ndim != 2 or not np.issubdtype(genes.dtype, np.integer) or (genes.size and genes.min() < 0):
        raise ValueError(f"ops must be integers from 0 of the shape (n, n_genes), got {genes.dtype} {genes.shape}")
    return genes.astype(np.int64)


def _one_hot(values: np.ndarray, n: int) -> np.ndarray:
    found: np.ndarray = np.eye(n, dtype=np.float32)[values]
    return found


def _squares(counts: np.ndarray) -> np.ndarray:
    squares: np.ndarray = np.einsum("ni,nj->nij", counts, counts)[:, *np.triu_indices(counts.shape[1])]
    return squares


def _words(names: Sequence[str]) -> np.ndarray:
    """Return what names of operations say of their cost, `(n_names, n_words)`, standardised; columns that vary only."""
    rows = []
    for name in names:
        low = name.lower()
        kernel = re.search(r"k(\d+)|(\d+)x\d+", low)
        size = float(kernel[1] or kernel[2]) if kernel else 0.0
        expansion = re.search(r"e(\d+)", low)
        times = float(expansion[1]) if expansion else 0.0
        is_free = low in _FREE
        rows.append(
            [
                float(not is_free),
                size,
                size**2,
                times,
                size * times,
                float(bool(re.search(r"g\d", low))),
                float("conv" in low),
            ]
        )
    words = np.array(rows)
    words = words[:, words.std(axis=0) > 0]
    standard: np.ndarray = (words - words.mean(axis=0)) / words.std(axis=0) / max(1, words.shape[1]) ** 0.5
    return standard


def _smooth(n_places: int) -> np.ndarray:
    """Return a matrix whose product with its transpose says how alike places are, `(n_places, n_places)`."""
    places = np.linspace(0, 1, n_places)
    near = np.exp(-((places[:, None] - places) ** 2) / (2 * _SMOOTHNESS**2))
    root: np.ndarray = np.linalg.cholesky(near + 1e-6 * np.eye(n_places))
    return root
