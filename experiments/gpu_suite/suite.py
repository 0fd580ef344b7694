"""Runs parts one after the other, each within its share of the time, and keeps what is finished."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from experiments.gpu_suite.parts import REQUIREMENTS, ROOT, Part, Setting

DONE, FAILED, TIME_UP, NOT_RUN = "done", "failed", "time is up", "not run"
_LAST_LINES = 15  # of a part's output, kept where it failed
_MIN_SECONDS = 5.0  # with less no part is started

Say = Callable[[str], None]


@dataclass(frozen=True)
class Suite:
    """A set of parts and how they are run.

    Attributes:
        parts: In order.
        seconds: For all of them together. What a part leaves over goes to those after it.
        rehearse: Whether to run small, and on the CPU.
        say: Told how it goes on.
    """

    parts: Sequence[Part]
    seconds: float
    rehearse: bool
    say: Say

    def run(self, before: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
        """Run all parts that are not done.

        Args:
            before: By part what an earlier call kept; those that are done are not run again.
            keep: Keeps the parts so far, called after each.

        Returns:
            By part its `state`, `seconds` and `result`, or the `reason` why there is none.
        """
        deadline = time.monotonic() + self.seconds
        ends: dict[str, Any] = {part.name: before[part.name] for part in self.parts if _is_done(before, part)}
        left = [part for part in self.parts if part.name not in ends]
        for name in ends:
            self.say(f"{name}: was done before")
        while left:
            part, share = left[0], left[0].share / sum(part.share for part in left)
            ends[part.name] = self._run(part, share * (deadline - time.monotonic()))
            self.say(f"{part.name}: {ends[part.name]['state']} {ends[part.name].get('reason', '')}".rstrip())
            keep(ends)
            left.pop(0)
        return ends

    def _run(self, part: Part, seconds: float) -> dict[str, Any]:
        if missing := not_installed(part.needs):
            return {"state": NOT_RUN, "reason": f"not installed: {', '.join(missing)}"}
        if seconds < _MIN_SECONDS:
            return {"state": NOT_RUN, "reason": "no time was left"}
        self.say(f"{part.name}: starts, at most {seconds:.0f} s")
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(Path(folder), seconds, self.rehearse)
            started = time.monotonic()
            try:
                code, last_lines = _run_group(part.command(setting), seconds, self._environment(), self.say)
                result = part.result(setting)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one part, the others go on
                return {"state": FAILED, "reason": f"{type(error).__name__}: {error}"}
        end = _judged(part, code, result) | {"seconds": round(time.monotonic() - started, 1), "result": result}
        return end if end["state"] == DONE else end | {"last_lines": last_lines}

    def _environment(self) -> dict[str, str]:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.rehearse else {}
        return {**os.environ, **hidden, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def not_installed(names: Iterable[str]) -> list[str]:
    """Return the requirements of these names that are not here."""
    return [REQUIREMENTS[name] for name in names if importlib.util.find_spec(name) is None]


def _is_done(before: Mapping[str, Any], part: Part) -> bool:
    return bool(before.get(part.name, {}).get("state") == DONE)


def _judged(part: Part, code: int | None, result: Mapping[str, Any] | None) -> dict[str, Any]:
    if code is None:
        return {"state": TIME_UP, "reason": "what it had found is kept" if result else "it had found nothing yet"}
    if result is None:
        return {"state": FAILED, "reason": f"exit code {code}, and no result"}
    if reason := part.fault(result) or (f"exit code {code}" if code else ""):
        return {"state": FAILED, "reason": reason}
    return {"state": DONE}


def _run_group(
    command: Sequence[str], seconds: float, environment: Mapping[str, str], say: Say
) -> tuple[int | None, list[str]]:
    """Run a command in a process group of its own; return its exit code, `None` where time was up, and its last lines.

    Whatever happens, none of the group's processes is left.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines: list[str] = []
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    reader = threading.Thread(target=_pass_on, args=(process.stdout, lines, say), daemon=True)
    reader.start()
    try:
        code: int | None = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _end_group(process)
    reader.join(timeout=10)
    if not reader.is_alive():
        process.stdout.close()
    return code, lines[-_LAST_LINES:]


def _end_group(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _pass_on(output: IO[str], lines: list[str], say: Say) -> None:
    for line in output:
        if text := line.rstrip()[:200]:
            lines.append(text)
            say(f"    {text[:120]}")


def load_before(path: Path | None, *, rehearse: bool, accelerator: str | None) -> dict[str, Any]:
    """Return the parts that an earlier call kept in `path`, if that was the same suite on such a machine."""
    if path is None or not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    is_same = kept.get("rehearsal") == rehearse and kept.get("accelerator") == accelerator
    return dict(kept.get("parts", {})) if is_same else {}


def write_whole(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that is there whole or not at all."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def say_with_time(start: float) -> Say:
    """Return what writes lines to the error output, each with the seconds since `start`."""
    return lambda text: print(f"[{time.monotonic() - start:5.0f} s] {text}", file=sys.stderr, flush=True)
