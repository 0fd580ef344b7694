"""The point that a run's hypervolume is measured from, fixed before the first training."""

import sys
from collections.abc import Callable, Mapping, Sequence

from nas.errors import EvaluationError
from nas.search.listener import SearchListener
from nas.search.parts import SearchParts
from nas.search.sampling import sample_costs
from nas.store.run_store import RunStore
from nas.values.objectives import Constraint, Direction, Objective

_MARGIN = 0.1  # of the sample's range, beyond its worst cost


def fix_reference_point(parts: SearchParts, store: RunStore, listener: SearchListener) -> None:
    """Store the run's reference point, unless it is stored already.

    Args:
        parts: Of the search.
        store: Of the run; keeps the sampled costs too, if some were measured.
        listener: Gets messages and progress.

    Raises:
        EvaluationError: If no genotype of the sample could be measured.
    """
    if store.fact("reference_point") is not None:
        return

    def sample(metrics: frozenset[str]) -> list[Mapping[str, float]]:
        rows = sample_costs(
            parts.problem,
            (parts.measuring, parts.working),
            parts.executor,
            metrics=metrics,
            stored=store.fact("reference_sample") or (),
            store=lambda rows: store.set_fact("reference_sample", rows),
            listener=listener,
        )
        return [row["metrics"] for row in rows]

    point = choose_reference_point(
        parts.problem.objectives,
        parts.constraints,
        given=parts.given_reference_point,
        chance_levels=parts.chance_levels,
        sample=sample,
    )
    store.set_fact("reference_point", point)


def without_reference(
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    given: Mapping[str, float],
    chance_levels: Mapping[str, float],
) -> list[Objective]:
    """Return the objectives whose worst value of interest only a sample can tell; arguments as below."""
    return [o for o in objectives if _known_reference(o, constraints, given, chance_levels) is None]


def choose_reference_point(
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    *,
    given: Mapping[str, float],
    chance_levels: Mapping[str, float],
    sample: Callable[[frozenset[str]], Sequence[Mapping[str, float]]],
) -> dict[str, float]:
    """Return the worst value of interest of each objective, in the metric's own units.

    For each objective the first of these that exists: the value `given`; the bound that a constraint sets on its bad
    side; the chance level; a little beyond the worst cost of a sample.

    Args:
        objectives: What is optimised.
        constraints: Their bounds.
        given: By metric, from the configuration.
        chance_levels: By metric, from the task.
        sample: Measures these metrics of random genotypes; called at most once, and only when nothing else tells.

    Raises:
        EvaluationError: If no genotype of the sample could be measured.
    """
    known = {o.metric: _known_reference(o, constraints, given, chance_levels) for o in objectives}
    point = {metric: value for metric, value in known.items() if value is not None}
    if unknown := without_reference(objectives, constraints, given, chance_levels):
        measured = sample(frozenset(objective.metric for objective in unknown))
        for objective in unknown:
            point[objective.metric] = _beyond_worst(objective, measured)
    return point


def _known_reference(
    objective: Objective,
    constraints: Sequence[Constraint],
    given: Mapping[str, float],
    chance_levels: Mapping[str, float],
) -> float | None:
    is_minimised = objective.direction is Direction.MINIMIZE
    own = [constraint for constraint in constraints if constraint.metric == objective.metric]
    bounds = [constraint.max if is_minimised else constraint.min for constraint in reversed(own)]
    known = (given.get(objective.metric), *bounds, chance_levels.get(objective.metric))
    return next((value for value in known if value is not None), None)


def _beyond_worst(objective: Objective, measured: Sequence[Mapping[str, float]]) -> float:
    losses = [objective.sign * metrics[objective.metric] for metrics in measured if objective.metric in metrics]
    if not losses:
        raise EvaluationError(
            f"no reference point for {objective.metric!r}: none of {len(measured)} sampled genotypes could be "
            "measured; give one under reference_point"
        )
    worst, best = max(losses), min(losses)
    point = worst + _MARGIN * ((worst - best) or abs(worst) or 1.0)
    return objective.sign * max(-sys.float_info.max, min(sys.float_info.max, point))
