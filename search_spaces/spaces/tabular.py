"""A table of known results as a search space: whole searches run in seconds, and the true front is known."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from search_spaces.base import OPTIONS, SearchSpace
from search_spaces.cell_graph import CellGraph
from search_spaces.errors import GenotypeError, SearchSpaceError
from search_spaces.genotype import Gene, GeneKind, Genotype
from search_spaces.spaces.table_file import read_table, table_boundary

_STRUCTURE = frozenset({"ops", "op_names", "edges", "ordinal"})


@dataclass(frozen=True, config=OPTIONS)
class Tabular(SearchSpace):
    """The architectures of a table, one row each, with their measured metrics. Builds no network.

    The table is an npz file without pickles: `ops`, `(n_rows, n_genes)` integers from 0 on; `op_names`,
    `(n_operations,)`, optional, what the integers mean; `edges`, `(n_genes, 2)`, optional, source and target
    node of each gene's edge; `ordinal`, optional, which genes are numbers, so that neighbouring integers mean similar
    things: `(n_genes,)` booleans, or names of genes; and any number of columns of `n_rows` numbers. Other arrays are
    left alone.

    Not every combination of genes need be a row; those that are none are not of the space, and `nearest` finds
    the next one that is. Rows are never merged, not even those that build the same network: their measurements
    differ. Rows with equal `ops` are told apart by a last gene, `repeat`. A table has at most 4,096 operations, about a
    million rows, and 512 MiB.

    Attributes:
        path: The file; `~` and `$VARIABLES` are expanded.
        costs: The columns that would be known before training, finite in every row; the others are what training gives.
        ordinal: Whether all genes are numbers, whatever the table says.
    """

    name: ClassVar[str] = "tabular"
    path: Path
    costs: tuple[str, ...] = ()
    ordinal: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options as plain values."""
        return {"path": str(self.path), "costs": list(self.costs), "ordinal": self.ordinal}

    def check(self) -> None:
        """Check the file, and that the costs are columns of it.

        Raises:
            SearchSpaceError: If the table cannot be read, or a cost is no column of finite numbers.
        """
        for name in self.costs:
            if name not in self.columns:
                known = ", ".join(sorted(self.columns)) or "none"
                raise SearchSpaceError(f"{self.path}: costs must be columns of the table, got {name!r}; known: {known}")
            if not np.isfinite(self.columns[name]).all():
                row = int(np.flatnonzero(~np.isfinite(self.columns[name]))[0])
                raise SearchSpaceError(f"{self.path}: a cost must be finite in every row; {name!r} is not in row {row}")
        self._row_numbers  # noqa: B018 - reads the genes of a table without costs

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """`edge_SOURCE_TARGET`, or `op_0`, `op_1`, ... for a table without edges; maybe `repeat`."""
        labels = self._labels
        numbers = self._numbers(labels)
        genes = [
            Gene(label, self._operations(column), GeneKind.ORDINAL if label in numbers else GeneKind.CATEGORICAL)
            for column, label in enumerate(labels)
        ]
        n_repeats = int(self.rows[:, len(genes) :].max(initial=0)) + 1
        repeat = Gene("repeat", tuple(str(number) for number in range(n_repeats)), GeneKind.CATEGORICAL)
        return (*genes, repeat) if n_repeats > 1 else tuple(genes)

    @property
    def _labels(self) -> list[str]:
        edges, n_genes = self._arrays.get("edges"), self._arrays["ops"].shape[1]
        if edges is None:
            return [f"op_{column}" for column in range(n_genes)]
        return [f"edge_{source}_{target}" for source, target in edges.tolist()]

    def _numbers(self, labels: Sequence[str]) -> set[str]:
        """Return the names of the genes that are numbers."""
        marked = self._arrays.get("ordinal")
        if self.ordinal:
            return set(labels)
        if marked is None:
            return set()
        if marked.dtype.kind not in "SU":
            return {label for label, is_number in zip(labels, marked.tolist(), strict=True) if is_number}
        named = {name.decode() if isinstance(name, bytes) else name for name in marked.tolist()}
        if unknown := sorted(named - set(labels)):
            raise SearchSpaceError(
                f"{self.path}: ordinal names no genes: {', '.join(unknown)}; known: {', '.join(labels)}"
            )
        return named

    @cached_property
    def rows(self) -> np.ndarray:
        """`(n_rows, n_genes)`: the genes of each row, in the table's order."""
        ops = self._arrays["ops"]
        seen: Counter[tuple[int, ...]] = Counter()
        repeats = np.empty((len(ops), 1), dtype=np.int64)
        for row, values in enumerate(map(tuple, ops.tolist())):
            repeats[row] = seen[values]
            seen[values] += 1
        return np.hstack([ops, repeats]) if repeats.any() else ops

    @cached_property
    def columns(self) -> Mapping[str, np.ndarray]:
        """By name, the numbers of each row, `(n_rows,)` float64; may hold NaN where nothing was measured."""
        n_rows = len(self._arrays["ops"])
        with np.errstate(all="ignore"):  # of longer numbers than float64
            return {
                name: array.astype(np.float64)
                for name, array in self._arrays.items()
                if name not in _STRUCTURE and array.shape == (n_rows,) and array.dtype.kind in "biuf"
            }

    @cached_property
    def cell_graph(self) -> CellGraph | None:
        """The cell's graph, for a table that has `edges` and `op_names`."""
        edges, names = self._arrays.get("edges"), self._arrays.get("op_names")
        if edges is None or names is None:
            return None
        return CellGraph(tuple((int(s), int(t)) for s, t in edges), tuple(str(name) for name in names))

    @property
    def n_genotypes(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def row(self, genotype: Genotype) -> int:
        """Return the number of the row that `genotype` is.

        Raises:
            GenotypeError: If it is none of this table.
        """
        self.validate(genotype)
        return self._row_numbers[genotype.genes]

    def validate(self, genotype: Genotype) -> None:
        """Check that `genotype` is a row.

        Raises:
            GenotypeError: If it names another space, or no row has its genes.
        """
        super().validate(genotype)
        if genotype.genes not in self._row_numbers:
            raise GenotypeError(f"no row of {self.path} has the genes {list(genotype.genes)}; nearest() finds one")

    def nearest(self, values: Sequence[int]) -> Genotype:
        """Return the row that differs from `values` in the fewest genes, then by the smallest steps."""
        wanted = tuple(int(value) for value in values)
        super().validate(Genotype(self.name, wanted))
        if wanted not in self._row_numbers:
            steps = np.abs(self.rows - np.array(wanted))
            row = np.lexsort((steps.sum(axis=1), (steps > 0).sum(axis=1)))[0]
            wanted = tuple(self.rows[row].tolist())
        return self.genotype(wanted)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Return a row, each with equal probability."""
        return Genotype(self.name, tuple(self.rows[rng.integers(len(self.rows))].tolist()))

    def enumerate(self) -> Iterator[Genotype]:
        """Yield every row in lexicographic order of its genes."""
        for values in sorted(self._row_numbers):
            yield Genotype(self.name, values)

    def fingerprint(self, genotype: Genotype) -> str:
        """Return 64 hex digits that identify the table's content and the genes; where the file lies plays no part."""
        content = json.dumps([self.name, self._digest, self.ordinal, list(genotype.genes)])
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self._file.read_bytes()).hexdigest()

    @property
    def _file(self) -> Path:
        return Path(os.path.expandvars(self.path)).expanduser()

    @cached_property
    def _row_numbers(self) -> Mapping[tuple[int, ...], int]:
        return {tuple(values): row for row, values in enumerate(self.rows.tolist())}

    def _operations(self, column: int) -> tuple[str, ...]:
        names = self._arrays.get("op_names")
        if names is not None:
            return tuple(str(name) for name in names)
        return tuple(str(value) for value in range(int(self._arrays["ops"][:, column].max()) + 1))

    @cached_property
    def _arrays(self) -> Mapping[str, np.ndarray]:
        """The file's arrays, `ops` as int64, checked."""
        with table_boundary(self.path):  # some texts can be no path
            is_there = self._file.exists()
        if not is_there:
            variable = "; it names an environment variable that is not set" if "$" in str(self._file) else ""
            raise SearchSpaceError(f"{self.path}: no such table: {self._file.absolute()}{variable}")
        with table_boundary(self.path):
            return read_table(self._file)
