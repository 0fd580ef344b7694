"""A profile as tables and lines for people, and as plain values for programs."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from latency.memory.breakdown import MemoryBreakdown
from latency.profiling.plot import peak_lines, readable_bytes
from latency.profiling.profile import ModuleCosts
from nas.analysis.tables import cell
from nas.profiling.profile import Profile
from nas.values.shown_text import shown

_MODULE_WIDTH = 20  # leaves room for the other columns on 80
_EXACT_BELOW = 10_000


def show(console: Console, found: Profile) -> None:
    """Print the tables and lines of a profile."""
    sizes = "x".join(map(str, (found.target.batch_size, *found.target.input_shape)))
    console.print(
        shown(f"{found.target.title}, input {sizes}"), style="bold", markup=False, highlight=False, soft_wrap=True
    )
    if found.modules:
        console.print(modules_table(found))
    for line in _lines(found):
        console.print(shown(line), markup=False, highlight=False, soft_wrap=True)
    for name, parts in found.breakdowns.items():
        console.print(breakdown_table(name, parts))
    for problem in found.problems:
        console.print(shown(problem, in_lines=True), style="yellow", markup=False, highlight=False, soft_wrap=True)


def modules_table(found: Profile) -> Table:
    """Return the costs of each module with their totals; counts of 10,000 and more are rounded."""
    complexity = found.complexity
    mark = "+" if complexity and complexity.is_partial else ""
    footers = {
        "module": "total",
        "params": _short(found.n_params) if found.n_params is not None else "",
        "MACs": _short(complexity.n_macs) + mark if complexity else "",
        "other": _short(complexity.n_other_operations) + mark if complexity else "",
        "output": "",
        "memory": readable_bytes(sum(row.activation_bytes for row in found.modules)),
    }
    if any(row.time_share is not None for row in found.modules):
        footers["time"] = ""
    table = Table(box=None, show_footer=True, header_style="bold", footer_style="bold", pad_edge=False)
    for name, footer in footers.items():
        is_text = name in {"module", "output"}
        # On a narrow screen only module paths are folded, never numbers.
        table.add_column(
            name, footer=footer, justify="left" if is_text else "right", no_wrap=name != "module", overflow="fold"
        )
    for row in found.modules:
        table.add_row(*_cells(row)[: len(footers)])
    return table


def breakdown_table(name: str, found: MemoryBreakdown) -> Table:
    """Return the parts of a process's memory as a table, largest first."""
    table = Table(box=None, show_footer=True, header_style="bold", footer_style="bold", pad_edge=False)
    table.add_column(f"memory of {name} on {found.device}", footer="total", no_wrap=True)
    table.add_column("size", footer=readable_bytes(found.total_bytes), justify="right", no_wrap=True)
    table.add_column("what it is")
    for part in found.parts:
        table.add_row(part.name, readable_bytes(part.n_bytes), f"{part.meaning} ({part.source})")
    return table


def to_json(found: Profile) -> dict[str, Any]:
    """Return a profile as plain JSON values."""
    complexity, memory = found.complexity, found.memory
    plain: dict[str, Any] = {
        "network": found.target.title,
        "input_shape": list(found.target.input_shape),
        "batch_size": found.target.batch_size,
        "n_params": found.n_params,
    }
    if complexity:
        plain |= {
            "n_macs": complexity.n_macs,
            "n_other_operations": complexity.n_other_operations,
            "other_operations": dict(complexity.other_operations),
            "is_partial": complexity.is_partial,
            "uncounted": list(complexity.uncounted),
        }
    if memory:
        plain["peak_memory_estimate_bytes"] = memory.peak_memory_estimate_bytes
        plain["memory"] = dataclasses.asdict(memory)
    plain["modules"] = [dataclasses.asdict(row) for row in found.modules]
    plain["latency"] = {name: dataclasses.asdict(stats) for name, stats in found.latencies.items()}
    plain["memory_breakdown"] = {name: dataclasses.asdict(parts) for name, parts in found.breakdowns.items()}
    plain["problems"] = list(found.problems)
    return plain


def _lines(found: Profile) -> list[str]:
    complexity = found.complexity
    lines = [] if found.n_params is None else [f"{found.n_params:,} parameters"]
    if complexity is not None:
        mark = " (partial)" if complexity.is_partial else ""
        lines[-1] += f", {complexity.n_macs:,} MACs{mark}, {complexity.n_other_operations:,} other operations{mark}"
    for name, stats in found.latencies.items():
        spread = f"p10 {stats.p10_ms:.3f}, p90 {stats.p90_ms:.3f}, {stats.n_runs} runs"
        remark = "" if stats.conditions.get("is_stable", True) else "; unstable: the machine is busy or the model small"
        lines.append(f"latency on {name}: {stats.median_ms:.3f} ms ({spread}{remark})")
    if found.memory is not None:
        total = readable_bytes(found.memory.peak_memory_estimate_bytes)
        working = readable_bytes(found.memory.peak_with_scratch_estimate_bytes)
        is_torch = not isinstance(found.target.network, Path)  # other runtimes have kernels of their own
        remark = f"; on the CPU with what operators take to work in: {working}" if is_torch else ""
        lines.append(f"peak memory estimate with weights and input: {total}{remark}")
        lines += (f"  {line}" for line in peak_lines(found.memory))
    return lines


def _cells(row: ModuleCosts) -> tuple[str, ...]:
    return (
        cell(_shortened(row.module or "(the model)")),
        _short(row.n_params),
        _short(row.n_macs),
        _short(row.n_other_operations),
        "x".join(map(str, row.output_shape)),
        readable_bytes(row.activation_bytes),
        "" if row.time_share is None else f"{row.time_share:.1%}",
    )


def _shortened(module: str) -> str:
    """Return a long dotted path with its middle left out: its ends tell modules apart."""
    if len(module) <= _MODULE_WIDTH:
        return module
    return f"{module[: _MODULE_WIDTH // 3]}…{module[_MODULE_WIDTH // 3 + 1 - _MODULE_WIDTH :]}"


def _short(number: int) -> str:
    if number < _EXACT_BELOW:
        return f"{number:,}"
    for power, unit in enumerate("kMG", start=1):
        scaled = number / 1000**power
        if scaled < 1000:
            return f"{scaled:.1f}{unit}"
    return f"{number / 1e12:.1f}T"
