"""From a YAML file to a checked `RunConfig`; all faults at once, each with its line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nas.config.kinds import Component
from nas.config.model import (
    ConstraintConfig,
    ControllerConfig,
    Difference,
    DistillationConfig,
    FunctionMetricConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
    differences,
)
from nas.config.reader import ConfigReader
from nas.config.yaml_source import YamlSource
from nas.errors import InputError

_TENSOR_CORES = (7, 0)  # the first compute capability with units for float16; bfloat16 came with 8.0

__all__ = [
    "Component",
    "ConstraintConfig",
    "ControllerConfig",
    "Difference",
    "DistillationConfig",
    "FunctionMetricConfig",
    "ObjectiveConfig",
    "RunConfig",
    "TrainingConfig",
    "differences",
    "load_config",
    "resolve_device",
    "resolve_precision",
]


def load_config(
    source: Path | str | Mapping[str, Any],
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> RunConfig:
    """Return the configuration in a YAML file, or given as a mapping of the same shape.

    Nothing is measured, trained or written, and of the data at most names are read.

    Args:
        source: The file, or the mapping.
        overrides: Changes such as `"controller.n_generations=20"`, the last one wins.
        trust_code: Whether Python code that the configuration names may be imported.

    Raises:
        ConfigurationError: Naming every fault with file, line and key.
    """
    read = YamlSource.from_mapping(source) if isinstance(source, Mapping) else YamlSource.read(source)
    return ConfigReader(read.with_overrides(overrides), trust_code=trust_code).read()


def resolve_device(device: str) -> str:
    """Return the torch device that `training.device` means on this machine: `auto` takes CUDA if it can.

    Raises:
        InputError: If CUDA, or that CUDA device, is asked for and is not here.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if n_cuda else "cpu"
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= n_cuda:
        raise InputError(
            f"training.device {device!r} is not here: torch {torch.__version__} sees {n_cuda} CUDA devices; "
            "use auto or cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """Return what `training.precision` means for trainings on `device`, from `resolve_device`."""
    if precision == "auto":
        precision = _fastest_precision(device)
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def _fastest_precision(device: str) -> str:
    if not device.startswith("cuda"):
        return "float32"
    with torch.cuda.device(device):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability() >= _TENSOR_CORES else "float32"
