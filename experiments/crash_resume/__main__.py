"""Is anything lost when commands are killed at random? kill -9 of the group, the parent or a worker, and resume.

Each trial is a folder in which commands are killed again and again until they end by themselves; then all that it holds
must be equal to that of a trial that nobody disturbed. `--append` goes on where earlier invocations ended.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - what commands import late: forked processes need not

from experiments.common import machine, parser
from experiments.crash_resume.killing import KINDS, Command, in_fork
from experiments.crash_resume.trials import TRIALS, Trial, best, ended, leftovers, outcome

RESULTS = Path(__file__).with_name("results.json")
COUNTS = ("kills", "real_kills", "finished", "differing", "lost", "orphans", "leftovers")
_MEAN_SHARE = 0.4  # of an undisturbed command's time, until it is killed


class Undisturbed:
    """What trials give that nobody kills, and how long each of their commands takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[dict[str, Any], list[float]]] = {}

    def __call__(self, trial: Trial) -> tuple[dict[str, Any], list[float]]:
        """Return outcome and seconds; made when first asked for."""
        if trial.name not in self._known:
            folder = self._folder / f"undisturbed-{trial.name}"
            trial.prepare(folder)
            seconds = []
            for arguments in trial.commands:
                start = time.perf_counter()
                command = Command(with_candidate(arguments, folder), folder)
                command.wait(3600.0)
                seconds.append(time.perf_counter() - start)
                if command.exit_code:
                    raise RuntimeError(f"{trial.name}: {(folder / 'log.txt').read_text(encoding='utf-8')}")
            self._known[trial.name] = (in_fork(outcome, folder), seconds)
        return self._known[trial.name]


def with_candidate(arguments: tuple[str, ...], folder: Path) -> list[str]:
    """Return a command's arguments with the best network's id where it is needed."""
    return [in_fork(best, folder) if argument == "CANDIDATE" else argument for argument in arguments]


def killed_trial(
    trial: Trial, folder: Path, seconds: list[float], rng: random.Random
) -> tuple[dict[str, int], dict[str, Any]]:
    """Let each command of a trial be killed until it ends; return the counts, and the outcome."""
    counts = dict.fromkeys(COUNTS, 0)
    seen: dict[str, Any] = {}
    trial.prepare(folder)
    for arguments, usual_s in zip(trial.commands, seconds, strict=True):
        given = with_candidate(arguments, folder)
        while not survived(Command(given, folder), usual_s, counts, rng, folder):
            for candidate, facts in in_fork(ended, folder).items():
                counts["lost"] += is_lost(seen.get(candidate, facts), facts)
                seen[candidate] = facts
    found = in_fork(outcome, folder)
    counts["lost"] += len(seen.keys() - {facts["id"] for facts in found["records"]})
    counts["leftovers"] = len(leftovers(folder))
    counts["finished"] = 1
    if trial.is_real:
        counts["real_kills"] = counts["kills"]
        counts["kills"] = 0
    return counts, found


def is_lost(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether anything of a record is another one now; scores of a full training may have come since."""
    return any(now[name] != value for name, value in before.items() if name != "retrained" or value)


def survived(command: Command, usual_s: float, counts: dict[str, int], rng: random.Random, folder: Path) -> bool:
    """Kill a command at a random instant, or its worker; return whether it has ended by itself all the same."""
    kind = rng.choice(KINDS)
    ends = command.wait(rng.expovariate(1 / (_MEAN_SHARE * usual_s)))
    if not ends and command.kill(kind, rng):
        counts["kills"] += 1
    if not ends and kind == "worker":  # it costs an attempt; a second one of the same candidate would be its failure
        ends = command.wait(rng.expovariate(1 / usual_s))
        if not ends:
            command.kill("parent", rng)
            counts["kills"] += 1
    command.wait(3600.0)
    counts["orphans"] += command.orphans()
    if command.exit_code in (0, -9):
        return command.exit_code == 0
    raise RuntimeError(f"exit code {command.exit_code}: {(folder / 'log.txt').read_text(encoding='utf-8')[-3000:]}")


def load(is_appended: bool) -> dict[str, Any]:
    """Return the counts so far, and the kinds of trials that differed."""
    if is_appended and RESULTS.exists():
        stored = json.loads(RESULTS.read_text(encoding="utf-8"))
        return {**{name: stored[name] for name in COUNTS}, "trials": stored["trials"], "faults": stored["faults"]}
    return {**dict.fromkeys(COUNTS, 0), "trials": {}, "faults": []}


def main() -> None:
    """Kill until there are enough kills, and report."""
    arguments = _parser().parse_args()
    totals = load(arguments.append)
    wanted = {False: totals["kills"] + arguments.kills, True: totals["real_kills"] + arguments.real_kills}
    with scratch_folder() as temporary:
        undisturbed = Undisturbed(temporary)
        number = totals["finished"]
        while todo := [t for t in TRIALS if totals["real_kills" if t.is_real else "kills"] < wanted[t.is_real]]:
            trial, number = todo[number % len(todo)], number + 1
            expected, seconds = undisturbed(trial)
            folder = temporary / f"{number}-{trial.name}"
            counts, found = killed_trial(trial, folder, seconds, random.Random(f"{arguments.seed}:{number}"))
            add(totals, trial, counts, differences(found, expected), leftovers(folder))
            if arguments.append:
                kept = json.dumps({**totals, "machine": machine()}, indent=2)
                RESULTS.write_text(kept + "\n", encoding="utf-8")
    shown = {name: totals[name] for name in COUNTS}
    if arguments.save:
        arguments.save.write_text(json.dumps({**totals, "machine": machine()}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(shown, indent=2) if arguments.json else "\n".join(f"{k}: {v}" for k, v in shown.items()))


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder; unlike `TemporaryDirectory`'s, no forked process deletes it at its end."""
    folder, owner = Path(tempfile.mkdtemp(prefix="crash-resume-")), os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder)


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return where a trial's outcome differs."""
    return [
        f"{key}: {str(found[key])[:300]} instead of {str(expected[key])[:300]}"
        for key in expected
        if found[key] != expected[key]
    ]


def add(totals: dict[str, Any], trial: Trial, counts: dict[str, int], differing: list[str], left: list[str]) -> None:
    """Add a finished trial to the totals."""
    for name, count in counts.items():
        totals[name] += count
    totals["differing"] += bool(differing)
    totals["trials"][trial.name] = totals["trials"].get(trial.name, 0) + 1
    totals["faults"] += [f"{trial.name}: {text}" for text in (*differing, *(f"left {path}" for path in left))][:5]


def _parser() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--kills", type=int, default=300, metavar="N", help="of searches with the fake device alone")
    arguments.add_argument("--real-kills", type=int, default=30, metavar="N", help="of commands that train networks")
    arguments.add_argument("--append", action="store_true", help=f"add to {RESULTS.name}, after each trial")
    arguments.add_argument("--seed", type=int, default=0)
    return arguments


if __name__ == "__main__":
    main()
