"""How long does the command line take to start? CPU seconds, beside an empty typer application."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nas
from experiments.common import machine, parser, report
from nas.cli.app import app

ROOT = Path(__file__).parents[2]
N_REPEATS = 30


def empty_application() -> str:
    """Return the source of an application with as many commands and groups as `nas` has, none with an argument."""
    lines = ["import typer", "app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)"]
    for i in range(len(app.registered_commands)):
        lines += [f"@app.command('command{i}')", f"def command{i}() -> None:", "    '''Do nothing.'''"]
    for i, group in enumerate(app.registered_groups):
        lines.append(f"group{i} = typer.Typer(help='Nothing to do.', no_args_is_help=True)")
        for j in range(len(group.typer_instance.registered_commands if group.typer_instance else ())):
            lines += [f"@group{i}.command('command{j}')", f"def command{i}_{j}() -> None:", "    '''Do nothing.'''"]
        lines.append(f"app.add_typer(group{i}, name='group{i}')")
    return "\n".join([*lines, "app()", ""])


def cpu_seconds(module: str, arguments: Sequence[str], folder: Path) -> float:
    """Return the user and system time of `python -m module arguments`, run in `folder`, beside this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime


def small_run(folder: Path) -> Path:
    """Return the folder of a run of 60 candidates from the toy table."""
    table = {"search_space.path": ROOT / "configs" / "toy_table.npz", "tensorboard": "false"}
    overrides = [f"{key}={value}" for key, value in table.items()]
    return nas.run_search(ROOT / "configs" / "tabular.yaml", folder / "run", overrides=overrides).path


def medians(commands: Mapping[str, tuple[str, Sequence[str]]], folder: Path) -> dict[str, float]:
    """Return the median CPU seconds of each command, the commands taking turns; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(N_REPEATS + 1):
        for name, (module, arguments) in commands.items():
            seconds[name].append(cpu_seconds(module, arguments, folder))
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def main() -> None:
    """Time the commands and report the medians."""
    arguments = parser(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "empty_application.py").write_text(empty_application(), encoding="utf-8")
        run = str(small_run(folder))
        commands = {
            "empty_help_cpu_s": ("empty_application", ("--help",)),
            "help_cpu_s": ("nas", ("--help",)),
            "show_cpu_s": ("nas", ("show", run)),
            "plot_cpu_s": ("nas", ("plot", run)),
        }
        found = medians(commands, folder)
    empty = found["empty_help_cpu_s"]
    ratios = {f"{name}_over_empty": found[f"{name}_cpu_s"] / empty for name in ("help", "show", "plot")}
    report({**found, **ratios, "n_repeats": N_REPEATS, "machine": machine()}, arguments)


if __name__ == "__main__":
    main()
