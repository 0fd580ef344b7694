"""What `nas show RUN --candidate ID` prints: one record whole, with the costs of its network by module."""

import json
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import Console

from nas.cli.common import allow_local_modules, print_text
from nas.errors import NasError

if TYPE_CHECKING:
    from nas.profiling.profile import Profile
    from nas.store.run import Run


class Format(StrEnum):
    """Output formats of `nas show`."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def show_record(run: "Run", candidate: str, form: Format, trust_code: bool) -> None:
    """Print one record whole; as CSV its row alone, as `nas show --all --format csv` holds it."""
    from nas.analysis.record import record_lines, record_values
    from nas.analysis.tables import rows_to_csv

    record = run.find(candidate)
    if form is Format.CSV:
        print(rows_to_csv([row for row in run.rows(with_references=True) if row["candidate"] == record.id]), end="")
        return
    costs, problem = _costs(run, record.id, trust_code)
    if form is Format.JSON:
        from nas.profiling.tables import to_json

        values = record_values(run, record, trust_code=trust_code)
        print(json.dumps({**values, "costs": to_json(costs) if costs else None, "costs_problem": problem}, indent=2))
        return
    console = Console()
    for line in record_lines(run, record, trust_code=trust_code):
        print_text(console, line)
    _print_costs(console, costs, problem)


def _costs(run: "Run", candidate: str, trust_code: bool) -> tuple["Profile | None", str | None]:
    """Return what the network costs, counted but not run, or why that is not known."""
    if not run.builds_networks:
        return None, "this run builds no networks"
    from nas.profiling import profile as profiling

    allow_local_modules(trust_code)
    try:
        target = profiling.run_target(run.path, candidate, trust_code)
        return profiling.profile(target, {}, timed=False), None
    except NasError as error:
        return None, str(error)


def _print_costs(console: Console, costs: "Profile | None", problem: str | None) -> None:
    if costs is None:
        print_text(console, f"costs by module: not known: {problem}")
        return
    from nas.profiling.tables import show

    console.print()
    show(console, costs)
