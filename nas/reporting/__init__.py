"""The report of a run: one page that shows what was found, whether to trust it, and which network to take."""

from nas.reporting.page import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
