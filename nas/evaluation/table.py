"""The stage of a search in a table: known results instead of measurements and trainings."""

from collections.abc import Collection, Sequence

from nas.evaluation.base import Need, Stage, Subject
from nas.values.records import Observation
from search_spaces.spaces.tabular import Tabular


class TableStage(Stage):
    """Reads a row's numbers.

    Args:
        table: The search space.
        columns: The metrics to read. A table's costs are read before its scores, as costs are measured before a
            training; the stage's name tells which of the two it reads.
    """

    needs = frozenset[Need]()
    is_harmless = True

    def __init__(self, table: Tabular, columns: Collection[str]) -> None:
        self.name = "table:costs" if set(columns) <= set(table.costs) else "table:scores"
        self.provides = frozenset(columns)
        self._values = {metric: table.columns[metric] for metric in sorted(columns)}

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return the numbers of the candidate's row.

        Raises:
            EvaluationError: If one of its numbers is not finite.
        """
        assert isinstance(subject.space, Tabular)  # noqa: S101 - nas.assembly makes this stage for no other space
        row = subject.space.row(subject.genotype)
        return subject.observe(self.name, {metric: float(values[row]) for metric, values in self._values.items()})
