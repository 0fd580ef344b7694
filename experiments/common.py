"""What experiments share: their command line, and the description of the machine in their results."""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every experiment."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--json", action="store_true", help="print the result alone, as JSON")
    arguments.add_argument("--save", type=Path, metavar="FILE", help="also keep the result, with the machine")
    return arguments


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of the machine that measured."""
    accelerator = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "accelerator": accelerator,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def report(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print `result`, and keep it if asked to."""
    text = json.dumps(result, indent=2)
    if arguments.save:
        kept = json.dumps({**result, "machine": machine()}, indent=2)
        arguments.save.write_text(kept + "\n", encoding="utf-8")
    print(text if arguments.json else "\n".join(f"{key}: {value}" for key, value in result.items()))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
