"""What a run looks like: tables, figures, the live view."""

from nas.analysis.plots import save_plots
from nas.analysis.tables import front_table, records_table, summary_lines, to_csv, to_json
from nas.store.run import Run

__all__ = ["Run", "front_table", "records_table", "save_plots", "summary_lines", "to_csv", "to_json"]
