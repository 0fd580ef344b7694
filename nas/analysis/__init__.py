"""What a run looks like: tables and figures, and what its records say about predictors and learning curves."""

from nas.analysis.tables import front_table, records_table, summary_lines, to_csv, to_json
from nas.store.run import Run

__all__ = ["Run", "front_table", "records_table", "summary_lines", "to_csv", "to_json"]
