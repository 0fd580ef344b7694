"""Exact costs that need no measurement: those of a table, and those counted from the network alone."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from latency.counting.complexity import count_model
from latency.errors import UncountedOperatorError
from nas.errors import LostProcessError
from nas.evaluation.base import ModelSignature
from nas.values.objectives import Constraint, violations
from search_spaces.base import ModelSpace
from search_spaces.genotype import Genotype
from search_spaces.spaces.tabular import Tabular

Costs = Callable[[Genotype], Mapping[str, float]]


class TableCosts:
    """Looks up a table's costs: free.

    Args:
        table: The search space.
        metrics: Wanted metrics; those among the table's costs are returned.
    """

    def __init__(self, table: Tabular, metrics: Collection[str]) -> None:
        self._table = table
        self._columns = {name: table.columns[name] for name in table.costs if name in metrics}

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        """Return the known costs of a row, the same metrics for each."""
        row = self._table.row(genotype)
        return {name: float(column[row]) for name, column in self._columns.items()}


class CountedCosts:
    """Counts parameters and multiply-adds without memory or weights; tens of milliseconds, once for each genotype.

    Args:
        space: Builds the networks.
        signature: Their input and output.
        call: Calls a function where a network that ends its process ends no search; an `Executor.call`.
    """

    def __init__(
        self, space: ModelSpace, signature: ModelSignature, call: Callable[..., dict[str, float]] | None = None
    ) -> None:
        self._space = space
        self._signature = signature
        self._call = call or (lambda function, *arguments: function(*arguments))
        self._known: dict[Genotype, dict[str, float]] = {}

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        """Return `n_params` and `n_macs`; nothing for a network that cannot be counted.

        The error of such a network is reported by its evaluation.
        """
        if genotype not in self._known:
            try:
                self._known[genotype] = self._call(_counted, self._space, self._signature, genotype)
            except LostProcessError:
                self._known[genotype] = {}
        return self._known[genotype]


def _counted(space: ModelSpace, signature: ModelSignature, genotype: Genotype) -> dict[str, float]:
    sizes = {"in_channels": signature.in_channels, "n_classes": signature.n_classes}
    for device in ("meta", "cpu"):  # with its weights only where a network reads them while it is built
        try:
            with torch.device(device):
                model = space.build(genotype, **sizes, seed=0)
            counts = count_model(model.eval(), signature.input_shape)
            return {"n_params": counts.n_params, "n_macs": counts.require_complete().n_macs}
        except UncountedOperatorError:
            return {}
        except Exception:  # noqa: BLE001, S112 - whatever a network raises
            continue
    return {}


def bounds_check(
    costs: Costs, constraints: Sequence[Constraint], metrics: Collection[str]
) -> Callable[[Genotype], bool]:
    """Return whether a genotype keeps those bounds that are on `metrics`, which `costs` gives before evaluation."""
    bounds = tuple(constraint for constraint in constraints if constraint.metric in metrics)
    if not bounds:
        return lambda genotype: True
    return lambda genotype: not violations(bounds, costs(genotype))
