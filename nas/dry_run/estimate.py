"""The sum of what a search will cost, from parts that were measured, and the lines that say it."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.analysis.tables import duration
from nas.search import confirmation


@dataclass(frozen=True)
class TrainingCost:
    """What a training costs.

    Attributes:
        step_s: Seconds of one step.
        n_steps: Of the whole training.
        start_s: What it costs beside its steps.
        scoring_s: Of scoring the validation split, as often as that happens.
    """

    step_s: float
    n_steps: int
    start_s: float
    scoring_s: float

    @property
    def total_s(self) -> float:
        """Seconds of training and scoring."""
        return self.start_s + self.n_steps * self.step_s + self.scoring_s


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs.

    Attributes:
        measuring_s: Seconds of its counts and devices.
        training: Of one training; `None` if nothing is trained.
    """

    measuring_s: float
    training: TrainingCost | None = None

    @property
    def training_s(self) -> float:
        """Seconds of one training, 0 without one."""
        return self.training.total_s if self.training else 0.0


@dataclass(frozen=True)
class CostEstimate:
    """What is left to pay of a search.

    Attributes:
        n_candidates: That are still to end, at most.
        n_done: That an earlier process has seen end.
        n_at_a_time: Trainings side by side.
        sampled: What sampled candidates cost; at least one where some candidate is left.
        n_seeds: Trainings of each candidate and reference.
        references: By name, those that have not ended.
        artifacts: Seconds of making, by name, what all candidates share and no run has made.
        n_reference_sample: Networks that are measured for the reference point, before the first candidate.
        found: Names of shared artifacts that are there already.
        n_front: A guess of the final front's size.
        n_front_seeds: Trainings of each of its members.
        measures_front: Whether its members are measured again.
        budget: In words; empty for none.
        budget_s: Seconds for which hours and GPU-hours last; `None` where neither is limited.
        assumptions: What the sum rests on, beside what follows from the other attributes.
    """

    n_candidates: int
    n_at_a_time: int
    sampled: tuple[NetworkCost, ...]
    n_done: int = 0
    n_seeds: int = 1
    references: Mapping[str, NetworkCost] = field(default_factory=dict)
    artifacts: Mapping[str, float] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    n_reference_sample: int = 0
    n_front: int = 0
    n_front_seeds: int = 0
    measures_front: bool = False
    budget: str = ""
    budget_s: float | None = None
    assumptions: tuple[str, ...] = ()

    @property
    def candidates_s(self) -> float:
        """Seconds of all candidates, whatever the budget."""
        measuring, training = self._means
        return self.n_candidates * measuring + self._side_by_side(self.n_candidates, self.n_seeds * training)

    @property
    def references_s(self) -> float:
        """Seconds of the references, which come before the first candidate."""
        costs = self.references.values()
        each = self.n_seeds * statistics.mean(cost.training_s for cost in costs) if costs else 0.0
        return sum(cost.measuring_s for cost in costs) + self._side_by_side(len(costs), each)

    @property
    def reference_sample_s(self) -> float:
        """Seconds of measuring the networks that fix the reference point."""
        return self.n_reference_sample * self._means[0]

    @property
    def front_s(self) -> float:
        """Seconds of measuring and training the final front again."""
        measuring, training = self._means
        again = confirmation.N_ROUNDS * measuring if self.measures_front else 0.0
        return self.n_front * again + self._side_by_side(self.n_front, self.n_front_seeds * training)

    @property
    def is_cut_short(self) -> bool:
        """Whether the budget ends the search before its size does."""
        return self.budget_s is not None and self.references_s + self.candidates_s > self.budget_s

    @property
    def total_s(self) -> float:
        """Seconds of all that is left: missing artifacts, the search within its budget, the front."""
        searching = self.references_s + self.candidates_s
        if self.budget_s is not None:
            searching = max(self.references_s, min(searching, self.budget_s))
        return sum(self.artifacts.values()) + self.reference_sample_s + searching + self.front_s

    def lines(self) -> list[str]:
        """Return what a person reads."""
        left = f" left of {self.n_done + self.n_candidates}" if self.n_done else ""
        shown = [f"candidates   {self.n_candidates}{left} at most, {self.n_at_a_time} trained at a time"]
        if self.sampled:
            shown.append(f"measuring    {_spread([cost.measuring_s for cost in self.sampled])} each")
        if trainings := [cost.training for cost in self.sampled if cost.training]:
            step_ms = statistics.median(cost.step_s for cost in trainings) * 1000
            times = f", {self.n_seeds} trainings" if self.n_seeds > 1 else ""
            steps = f"{trainings[0].n_steps} steps of {step_ms:.3g} ms{times}"
            shown.append(f"training     {_spread([cost.total_s for cost in trainings])} each ({steps})")
        shown += [f"{name:<12} {duration(seconds)}, once" for name, seconds in self.artifacts.items()]
        shown += [f"{name:<12} there already" for name in self.found]
        if self.reference_sample_s:
            seconds = duration(self.reference_sample_s)
            shown.append(f"hypervolume  {seconds} for its reference point: {self.n_reference_sample} networks measured")
        for name, cost in self.references.items():
            shown.append(f"{name:<12} {duration(cost.measuring_s + self.n_seeds * cost.training_s)}, a reference")
        if self.front_s:
            shown.append(f"front again  {duration(self.front_s)}")
        if self.budget:
            ends = "it ends the search" if self.is_cut_short else "the search ends before it"
            shown.append(f"budget       {self.budget}" + (f"; {ends}" if self.budget_s is not None else ""))
        shown.append(f"altogether   about {duration(self.total_s)}")
        return [*shown, *(f"Assumed: {assumption}." for assumption in (*self._implied_assumptions, *self.assumptions))]

    @property
    def _implied_assumptions(self) -> list[str]:
        texts = []
        if self.n_front and (self.n_front_seeds or self.measures_front):
            again = [f"trained under {self.n_front_seeds} other seeds"] * bool(self.n_front_seeds)
            again += [f"measured {confirmation.N_ROUNDS} times more"] * self.measures_front
            texts.append(f"the final front has about {self.n_front} members, each {' and '.join(again)}")
        if self.n_seeds > 1:
            texts.append(f"each candidate and reference is trained {self.n_seeds} times (seeds_per_candidate)")
        if self.is_cut_short:
            texts.append("what runs when the budget is used up ends at once; it is finished in truth")
        return texts

    @property
    def _means(self) -> tuple[float, float]:
        """Seconds of measuring and of one training of a candidate."""
        if not self.sampled:
            return 0.0, 0.0
        return (
            statistics.mean(cost.measuring_s for cost in self.sampled),
            statistics.mean(cost.training_s for cost in self.sampled),
        )

    def _side_by_side(self, n: int, each_s: float) -> float:
        """Return the seconds of `n` equal trainings: never less than one of them takes."""
        return max(n / self.n_at_a_time, min(n, 1)) * each_s


def guessed_front_size(n_candidates: int) -> int:
    """Return about how large a front gets, a rule of thumb: twice the root of the number of candidates."""
    return min(n_candidates, round(2 * math.sqrt(n_candidates)))


def _spread(seconds: list[float]) -> str:
    middle, low, high = (duration(f(seconds)) for f in (statistics.mean, min, max))
    return f"{middle} ({low} .. {high}, {len(seconds)} sampled)"
