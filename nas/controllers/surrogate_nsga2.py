"""NSGA-II on a model of what training would give: few trainings, much thinking before each."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from scipy.stats import kendalltau

from nas.controllers.base import SearchProblem, SizedController
from nas.controllers.expected_gain import BoxPoints, Outlook, by_expected_gain, expected_gain, points_beyond
from nas.controllers.nsga2 import Nsga2
from nas.predictors import FeatureEncoder, FeatureGroups, GaussianProcess, Predictor, Trees
from nas.values.bounds import bounded
from nas.values.objectives import Objective
from nas.values.pareto import non_dominated
from nas.values.records import Record, RecordState
from search_spaces.genotype import Genotype

_LOGGER = logging.getLogger(__name__)

_INNER_POPULATION, _INNER_GENERATIONS = 60, 15
_N_START_POOL = 300  # random genotypes that the first ones are chosen from
_ANCHOR_SHARE = 0.2  # of the interest, below the best value: where the logarithmic scale starts
_CAP_SHARE = 6.0  # of the interest, above the best value: all worse values count the same
_CHANCE_DEVIATIONS = 1.0  # of Kendall's tau of unrelated rankings; a predictor must rank better than that
_SOBER, _BOLD = 0.5, 2.0  # predicted spreads that count: with few trainings to exploit pays (measured on tables),
_BOLD_EVERY = 4  # but every fourth candidate looks where the model may be wrong, lest it never find out
_COST_MARGIN = 0.02  # of the range, beyond the largest cost of interest


@dataclass(frozen=True)
class LossScale:
    """A logarithmic view of a predicted loss, fine near the best value and blind to how bad the bad ones are.

    Attributes:
        anchor: The loss at which the scale starts, a little below the best one known.
        cap: The loss from which all count the same.
    """

    anchor: float
    cap: float

    @classmethod
    def of(cls, losses: np.ndarray, interest: float) -> "LossScale":
        """Return the scale for known `losses`, of which those within `interest` of the best are of use."""
        best = float(losses.min())
        return cls(best - _ANCHOR_SHARE * interest, best + _CAP_SHARE * interest)

    def __call__(self, losses: np.ndarray) -> np.ndarray:
        """Return `losses` on this scale; those at or below the anchor stand far down."""
        least = 1e-3 * (self.cap - self.anchor)
        return np.asarray(np.log(np.clip(losses, self.anchor + least, self.cap) - self.anchor))


@dataclass(frozen=True)
class _Pool:
    """Genotypes to choose from, with what is known of them."""

    genotypes: Sequence[Genotype]
    features: FeatureGroups
    costs: np.ndarray  # (n, n_objectives), minimised; NaN where not known before evaluation


class SurrogateNsga2(SizedController):
    """Evaluates what a model of the objectives expects to add most to the front's hypervolume.

    The first candidates fill the space. From then on, before each batch, a Gaussian process
    learns every objective that is not known beforehand; candidates come from the whole space where it is small,
    and from an inner NSGA-II over the model where it is not; and a batch is chosen greedily by expected gain, each
    choice lowering the gain of what lies near it; every fourth candidate by a view that doubts the model more. While
    the model ranks records that it has not seen no better than chance does, batches are plain NSGA-II steps.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time; the model learns after each batch.
        n_initial: How many to spread over the space first.
        interest: By metric, how far behind the best value one may lie and still be of use, in the metric's units
            (`{accuracy: 0.05}`). Left out: as far as the front known so far reaches.
        max_pool: Up to how many genotypes the whole space is scored for each batch.

    Source:
        Lu et al. 2020, NSGANetV2, arXiv:2007.10396, for the loop.
        Differs: known costs stay exact; expected hypervolume gain instead of a second selection by reference
        directions; a small space is scored completely.
    """

    @bounded
    def __init__(
        self,
        n_candidates: Annotated[int, Ge(1), Le(10**9)] = 100,
        batch_size: Annotated[int, Ge(1), Le(10**6)] = 4,
        n_initial: Annotated[int, Ge(1), Le(10**6)] = 10,
        interest: Mapping[str, Annotated[float, Gt(0), Le(1e6)]] | None = None,
        max_pool: Annotated[int, Ge(1), Le(10**7)] = 20_000,
    ) -> None:
        super().__init__(n_candidates, batch_size)
        for metric, reach in (interest or {}).items():
            if not reach > 0:
                raise ValueError(f"interest must be positive, got {reach} for {metric}")
        self._n_initial = max(n_initial, 3)
        self._interest = dict(interest or {})
        self._max_pool = max_pool

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`; encodes the whole space where it is small."""
        super().setup(problem)
        self._plain = Nsga2()
        self._plain.setup(problem)
        self._encoder = FeatureEncoder(problem.space)
        self._records: list[Record] = []
        self._thought_of = -1  # the number of tells that the last batch was chosen after
        self._n_tells = 0
        self._predictors: dict[int, Predictor] = {}
        self._view: tuple[Outlook, np.ndarray, BoxPoints] | None = None
        self._whole: _Pool | None = None
        if problem.space.n_genotypes <= self._max_pool:
            distinct = dict.fromkeys(problem.space.canonical(genotype) for genotype in problem.space.enumerate())
            self._whole = self._pool(list(distinct))

    def tell(self, records: Sequence[Record]) -> None:
        """Keep the records for the next fit, and let them compete in the plain NSGA-II's population."""
        self._plain.tell(records)
        self._records += [record for record in records if record.state is not RecordState.FAILED]
        self._n_tells += 1

    def expected_gain(self, n_next: int) -> float | None:
        """Return what the model that the last batch was chosen by expects: see `Controller.expected_gain`."""
        return None if self._view is None else expected_gain(*self._view, n_next)

    def _propose(self, n: int) -> Iterable[Genotype]:
        if self._thought_of == self._n_tells:  # what the model proposed did not suffice
            return self._plain._propose(n)
        self._thought_of = self._n_tells
        self._view = None
        complete = [record for record in self._records if record.is_complete]
        if len(complete) < self._n_initial:
            return self._spread_out(n)
        return self._by_model(complete, n)

    def _by_model(self, complete: Sequence[Record], n: int) -> Iterable[Genotype]:
        losses = self._told(complete).losses
        known = self._pool([record.candidate.genotype for record in complete])
        scales = self._fit(known, losses)
        if not self._ranks_better_than_chance(losses, scales):
            _LOGGER.info("After %d records the predictor ranks no better than chance: an NSGA-II step.", len(complete))
            return self._plain._propose(n)
        pool = self._whole or self._inner_search(complete, scales)
        return self._gainful(pool, losses, scales, n)

    # The model

    def _fit(self, known: _Pool, losses: np.ndarray) -> dict[int, LossScale]:
        """Fit a predictor for each objective that is not known beforehand; return their scales."""
        scales = {}
        features = self._with_costs(known)
        for index, objective in enumerate(self._problem.objectives):
            if not np.isnan(known.costs[:, index]).any():
                continue
            scales[index] = LossScale.of(losses[:, index], self._reach(objective, losses[:, index]))
            predictor = self._predictors.setdefault(index, GaussianProcess())
            predictor.fit(features, scales[index](losses[:, index]))
        return scales

    def _reach(self, objective: Objective, losses: np.ndarray) -> float:
        """Return how far behind the best a loss is of use."""
        spread = float(np.median(losses) - losses.min()) or float(np.ptp(losses)) or 1.0
        return self._interest.get(objective.metric, spread)

    def _ranks_better_than_chance(self, losses: np.ndarray, scales: Mapping[int, LossScale]) -> bool:
        for index in scales:
            expected = self._predictors[index].held_out()
            seen = np.isfinite(expected)
            n = int(seen.sum())
            if n < 3 or np.ptp(losses[seen, index]) == 0:
                return False
            deviation = np.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
            tau = kendalltau(expected[seen], losses[seen, index]).statistic
            if not tau > _CHANCE_DEVIATIONS * deviation:
                return False
        return True

    def _outlook(self, pool: _Pool, scales: Mapping[int, LossScale]) -> Outlook:
        means, spreads = pool.costs.copy(), np.zeros_like(pool.costs)
        features = self._with_costs(pool)
        for index in scales:
            prediction = self._predictors[index].predict(features)
            means[:, index], spreads[:, index] = prediction.mean, _SOBER * prediction.spread
        return Outlook(means, spreads, self._chances(features))

    def _chances(self, features: FeatureGroups) -> np.ndarray:
        """Return the probability that each genotype ends COMPLETE, from the PRUNED and INFEASIBLE records."""
        n = len(features)
        completes = np.array([float(record.is_complete) for record in self._records])
        if completes.all():
            return np.ones(n)
        told = self._pool([record.candidate.genotype for record in self._records])
        trees = Trees(seed=-1 % 2**31)
        trees.fit(self._with_costs(told), completes)
        return np.asarray(np.clip(trees.predict(features).mean, 0.02, 1.0))

    # What to choose from

    def _pool(self, genotypes: Sequence[Genotype]) -> _Pool:
        costs = np.full((len(genotypes), len(self._problem.objectives)), np.nan)
        for row, genotype in enumerate(genotypes):
            known = self._problem.known_costs(genotype)
            for index, objective in enumerate(self._problem.objectives):
                costs[row, index] = objective.sign * known.get(objective.metric, np.nan)
        return _Pool(genotypes, self._encoder.encode(genotypes), costs)

    def _with_costs(self, pool: _Pool) -> FeatureGroups:
        exact = ~np.isnan(pool.costs).any(axis=0)
        if not exact.any():
            return pool.features
        costs = pool.costs[:, exact]
        magnitudes = np.sign(costs) * np.log1p(np.abs(costs))
        return FeatureGroups({**pool.features.columns, "costs": magnitudes})

    def _spread_out(self, n: int) -> Iterator[Genotype]:
        """Yield new random genotypes, each likely to be far from those before it.

        Source:
            Arthur & Vassilvitskii 2007, k-means++: drawn by squared distance, since the farthest are the oddest.
        """
        space = self._problem.space
        drawn = dict.fromkeys(space.canonical(space.sample(self._rng)) for _ in range(_N_START_POOL))
        pool = self._pool([genotype for genotype in drawn if genotype.genes not in self._asked])
        if not pool.genotypes:
            return
        matrix = self._with_costs(pool).matrix
        matrix = (matrix - matrix.mean(axis=0)) / np.where(np.ptp(matrix, axis=0) > 0, matrix.std(axis=0), 1.0)
        distances = np.ones(len(matrix))
        for _ in range(2 * n):
            if not distances.sum() > 0:
                return
            chosen = self._rng.choice(len(matrix), p=distances / distances.sum())
            distances = np.minimum(distances, ((matrix - matrix[chosen]) ** 2).mean(axis=1))
            distances[chosen] = 0
            yield pool.genotypes[chosen]

    def _inner_search(self, complete: Sequence[Record], scales: Mapping[int, LossScale]) -> _Pool:
        """Return all genotypes that an NSGA-II over the model came across."""
        inner = Nsga2(population_size=_INNER_POPULATION)
        inner.setup(SearchProblem(self._problem.space, self._problem.objectives, int(self._rng.integers(2**31))))
        inner.tell(complete)
        found: dict[Genotype, None] = {}
        for _ in range(_INNER_GENERATIONS):
            proposed = dict.fromkeys(self._problem.space.canonical(genotype) for genotype in inner._propose(0))
            pool = self._pool(list(proposed))
            outlook = self._outlook(pool, scales)
            inner.tell_losses(np.array([genotype.genes for genotype in proposed]), outlook.means)
            found |= proposed
        return self._pool(list(found))

    def _gainful(self, pool: _Pool, losses: np.ndarray, scales: Mapping[int, LossScale], n: int) -> Iterator[Genotype]:
        """Yield new genotypes of `pool` that keep the cheap bounds, the most gainful first, bold ones among `n`."""
        asked = np.array([genotype.genes in self._asked for genotype in pool.genotypes])
        outlook = self._outlook(pool, scales)
        sober = replace(outlook, chances=np.where(asked, 0.0, outlook.chances))
        bold = replace(sober, spreads=_BOLD / _SOBER * sober.spreads)
        front, points = self._box(sober, losses, scales)
        self._view = replace(sober, spreads=sober.spreads / _SOBER), front, points
        sober_rows = by_expected_gain(sober, front, points)
        n_bold = (len(losses) + n) // _BOLD_EVERY - len(losses) // _BOLD_EVERY
        first = itertools.islice(sober_rows, n - n_bold)
        bold_rows = itertools.islice(by_expected_gain(bold, front, points), n)
        for row in itertools.chain(first, bold_rows if n_bold else (), sober_rows):
            if self._problem.keeps_cheap_bounds(pool.genotypes[row]):
                yield pool.genotypes[row]

    def _box(
        self, outlook: Outlook, losses: np.ndarray, scales: Mapping[int, LossScale]
    ) -> tuple[np.ndarray, BoxPoints]:
        """Return the front, and points of the box of interest beyond it, both on the predictors' scales."""
        highest, lowest = self._reference(outlook, losses, scales), np.nanmin(losses, axis=0)
        for index in range(losses.shape[1]):
            if index in scales:
                lowest[index] = scales[index].anchor
            else:
                lowest[index] = min(lowest[index], outlook.means[:, index].min())
        front = losses[(losses < highest).all(axis=1)]
        front = front[non_dominated(front)]
        points = points_beyond(front, lowest, highest, self._rng)
        for index, scale in scales.items():
            for values in (front, points.beyond, highest[np.newaxis]):
                values[:, index] = scale(values[:, index])
        return front, points

    def _reference(self, outlook: Outlook, losses: np.ndarray, scales: Mapping[int, LossScale]) -> np.ndarray:
        """Return the worst losses of interest: what the front and its likely successors reach."""
        best = losses.min(axis=0)
        worst = np.full_like(best, np.inf)
        for index, objective in enumerate(self._problem.objectives):
            if index in scales and objective.metric in self._interest:
                worst[index] = best[index] + self._interest[objective.metric]
        front = losses[non_dominated(losses)]
        front = front[(front <= worst).all(axis=1)]
        nadir = front.max(axis=0)
        optimistic = outlook.means - outlook.spreads
        hopeful = np.zeros(len(optimistic), dtype=bool)
        for index, scale in scales.items():
            hopeful |= optimistic[:, index] <= scale(best[index : index + 1])
        for index in range(len(best)):
            if index not in scales and hopeful.any():
                nadir[index] = max(nadir[index], np.quantile(outlook.means[hopeful, index], 0.9))
        nadir += _COST_MARGIN * np.maximum(nadir - best, 1e-9)
        return np.asarray(np.where(np.isfinite(worst), worst, nadir))
