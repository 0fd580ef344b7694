"""The truth of a table: all of its rows, their front, and what a search found of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nas.analysis.benchmark import TrueFront
from nas.controllers import SearchProblem
from nas.values.objectives import Direction, Objective
from nas.values.records import Candidate, Record, RecordState
from search_spaces.genotype import Genotype
from search_spaces.spaces.tabular import Tabular

CHECKPOINTS = (25, 50, 100, 200)
SHARES = (0.95, 0.99)


@dataclass(frozen=True)
class Benchmark:
    """A table as a search problem whose truth is known.

    Attributes:
        table: The architectures.
        losses: `(n_rows, n_objectives)`: the error in percent, then the costs.
        costs: Names of the cost columns.
        usable: How much larger than the best error one may be.
        truth: The front of it all.
        is_blind: Whether costs are known of what was asked alone, and nobody is told how large an error is of use.
        told: What a training of each row says, `(n_rows, n_objectives)`; `None` for the losses themselves.
    """

    table: Tabular
    losses: np.ndarray
    costs: tuple[str, ...]
    usable: float
    truth: TrueFront
    is_blind: bool = False
    told: np.ndarray | None = None

    @classmethod
    def load(cls, path: Path, error: str, costs: Sequence[str], usable: float) -> "Benchmark":
        """Read a table; `error` is the column of an accuracy in percent.

        Raises:
            SystemExit: If a column is missing or not finite.
        """
        table = Tabular(path)
        for name in (error, *costs):
            if name not in table.columns:
                raise SystemExit(f"{path}: no column {name!r}; there are {', '.join(sorted(table.columns))}")
            if not np.isfinite(table.columns[name]).all():
                raise SystemExit(f"{path}: column {name!r} must be finite in every row")
        losses = np.column_stack([100 - table.columns[error], *(table.columns[name] for name in costs)])
        return cls(table, losses, tuple(costs), usable, TrueFront.of(losses, usable))

    def trained_once(self, noise_std: np.ndarray | float, seed: int) -> "Benchmark":
        """Return the same truth, where a training's error is drawn around the mean.

        Args:
            noise_std: Between trainings of a row, in points of the error.
            seed: Of the draws.
        """
        told = self.losses.copy()
        told[:, 0] += np.random.default_rng([seed, 1]).normal(0.0, 1.0, len(told)) * noise_std
        return replace(self, told=told)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The error and the costs, all to be minimised."""
        return tuple(Objective(name, Direction.MINIMIZE) for name in ("error", *self.costs))

    def metrics(self, row: int) -> dict[str, float]:
        """Return what a training of a row says."""
        said = self.losses if self.told is None else self.told
        return dict(zip(("error", *self.costs), map(float, said[row]), strict=True))

    def problem(self, seed: int) -> SearchProblem:
        """Return it as a controller is given it: the costs are known beforehand, unless the league is blind."""

        def known_costs(genotype: Genotype) -> dict[str, float]:
            metrics = self.metrics(self.table.row(genotype))
            return {name: metrics[name] for name in self.costs}

        if self.is_blind:
            return SearchProblem(self.table, self.objectives, seed)
        return SearchProblem(self.table, self.objectives, seed, known_costs=known_costs)

    def record(self, candidate: Candidate) -> Record:
        """Return what a training of a candidate gives."""
        metrics = self.metrics(self.table.row(candidate.genotype))
        return Record(candidate, RecordState.COMPLETE, metrics, number=0, batch=0)

    def is_done(self, losses: np.ndarray) -> bool:
        """Return whether a search has reached all that is asked about."""
        return len(losses) >= CHECKPOINTS[-1] and self.truth.hypervolume_share(losses) >= SHARES[-1]
