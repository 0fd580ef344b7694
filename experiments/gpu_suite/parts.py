"""What the suite runs, in this order. A new part is a class and a line in `PARTS`."""

import json
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[2]

REQUIREMENTS: Mapping[str, str] = {
    "torch": "torch>=2.11,<2.14",
    "numpy": "numpy>=1.26",
    "scipy": "scipy>=1.11",
    "sklearn": "scikit-learn>=1.5",
    "pymoo": "pymoo>=0.6.2,<0.7",
    "moocore": "moocore>=0.1.7",
    "onnx": "onnx>=1.17",
    "onnxscript": "onnxscript>=0.5",
    "onnxruntime": "onnxruntime>=1.20",
    "yaml": "pyyaml>=6.0",
    "pydantic": "pydantic>=2.10,<3",
    "typer": "typer>=0.15",
    "rich": "rich>=13.9",
    "tensorboard": "tensorboard>=2.18",
    "matplotlib": "matplotlib>=3.9",
    "PIL": "pillow>=11",
    "safetensors": "safetensors>=0.5",
    "filelock": "filelock>=3.16",
    "pytest": "pytest>=8.3",
}
"""All that must be installed, by the name it is imported under: the project's own requirements, and pytest."""


@dataclass(frozen=True)
class Setting:
    """What a part is given.

    Attributes:
        folder: Its own, empty; its result goes to `result.json` there.
        seconds: What it may take.
        rehearse: Whether to be as small as can be, on the CPU.
    """

    folder: Path
    seconds: float
    rehearse: bool

    @property
    def result(self) -> Path:
        """Where the part's process leaves its result."""
        return self.folder / "result.json"


class Part(ABC):
    """One part of the suite: a command, run in a process group of its own.

    Attributes:
        name: In the result.
        share: Of the suite's time.
        needs: Of `REQUIREMENTS`, those without which it is not started.
    """

    name: ClassVar[str]
    share: ClassVar[float]
    needs: ClassVar[tuple[str, ...]]

    @abstractmethod
    def command(self, setting: Setting) -> list[str]:
        """Return the command, run in the checkout."""

    def result(self, setting: Setting) -> dict[str, Any] | None:
        """Return what is there when the process has ended or was ended; `None` for nothing."""
        if not setting.result.exists():
            return None
        result: dict[str, Any] = json.loads(setting.result.read_text(encoding="utf-8"))
        return result

    def fault(self, result: Mapping[str, Any]) -> str:
        """Return what is wrong by a result of a process that ended well; empty for nothing."""
        return ""


class GpuTests(Part):
    """The tests marked `gpu`. Warnings are no errors: other versions of libraries have others."""

    name = "gpu_tests"
    share = 0.3
    needs = ("torch", "numpy", "pytest")

    def command(self, setting: Setting) -> list[str]:
        """Return a call of pytest for the files that hold such tests."""
        tests = sorted(p for p in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in p.read_text("utf-8"))
        files = [str(path.relative_to(ROOT)) for path in tests]
        plugins = ["-p", "no:cacheprovider", "-p", "experiments.gpu_suite.outcomes", f"--outcomes={setting.result}"]
        return [*_python("pytest"), "-m", "gpu", "-v", "-W", "default", *plugins, *files]

    def result(self, setting: Setting) -> dict[str, Any] | None:
        """Return how many passed, were skipped and failed, up to where it got; and why."""
        if not setting.result.exists():
            return None
        ends = [json.loads(line) for line in setting.result.read_text(encoding="utf-8").splitlines()]
        counts = Counter(end["outcome"] for end in ends)
        return {
            **{outcome: counts[outcome] for outcome in ("passed", "skipped", "failed")},
            "failures": {end["test"]: end["reason"] for end in ends if end["outcome"] == "failed"},
            "reasons_to_skip": Counter(end["reason"] for end in ends if end["outcome"] == "skipped"),
        }

    def fault(self, result: Mapping[str, Any]) -> str:
        """Return how many failed."""
        return f"{result['failed']} tests failed" if result["failed"] else ""


class MemoryEstimate(Part):
    """`experiments.memory_estimate`: how near the estimate of peak memory is to what the allocator saw."""

    name = "memory_estimate"
    share = 0.12
    needs = ("torch", "numpy")

    def command(self, setting: Setting) -> list[str]:
        """Return the experiment with as many models as there is time for, at about a second each."""
        n_models = 4 if setting.rehearse else int(min(200, max(8, setting.seconds - 20)))
        return [*_experiment("memory_estimate", setting), "--n-models", str(n_models)]


class LatencyRepeatability(Part):
    """`experiments.latency_repeatability`: how far a latency repeats in a fresh process."""

    name = "latency_repeatability"
    share = 0.25
    needs = ("torch", "numpy")

    def command(self, setting: Setting) -> list[str]:
        """Return the experiment with as many processes as there is time for, at about 25 s each."""
        if setting.rehearse:
            options = {"device": "cpu", "n-models": 2, "n-processes": 2, "time-limit-s": 0.5}
        else:
            n_processes = int(min(10, max(3, (setting.seconds - 20) / 25)))
            options = {"device": "cuda", "n-models": 12, "n-processes": n_processes, "time-limit-s": 1.0}
        return [*_experiment("latency_repeatability", setting), *_options(options)]


class EngineThroughput(Part):
    """`experiments.evaluation_throughput`: candidates an hour, the engine beside the usual loop."""

    name = "evaluation_throughput"
    share = 0.33
    needs = ("torch", "numpy", "scipy", "pymoo", "yaml", "pydantic")

    def command(self, setting: Setting) -> list[str]:
        """Return the experiment with as many candidates as there is time for, at about 15 s each."""
        if not setting.rehearse:
            n_candidates = 4 * int(min(6, max(1, (setting.seconds - 90) / 60)))
            return [
                *_experiment("evaluation_throughput", setting),
                *_options({"device": "cuda", "n-candidates": n_candidates}),
            ]
        tiny = [
            "data={kind: synthetic_faces, image_size: 32, n_train: 64, n_validation: 32}",
            "teacher.recipe={epochs: 1, batch_size: 8}",
            "pretraining.epochs=1",
            "training.epochs=1",
            "execution={kind: serial}",
        ]
        changes = [word for change in tiny for word in ("--set", change)]
        options = _options({"device": "cpu", "n-candidates": 2})
        return [*_experiment("evaluation_throughput", setting), *options, *changes]


PARTS: tuple[Part, ...] = (GpuTests(), MemoryEstimate(), LatencyRepeatability(), EngineThroughput())


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _experiment(name: str, setting: Setting) -> list[str]:
    return [*_python(f"experiments.{name}"), "--save", str(setting.result)]


def _options(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]
