"""From a YAML file to a checked `RunConfig`; all faults at once, each with its line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.config.checks import check
from nas.config.draft import Draft
from nas.config.kinds import Component
from nas.config.model import (
    ConstraintConfig,
    ControllerConfig,
    Difference,
    DistillationConfig,
    FunctionMetricConfig,
    ObjectiveConfig,
    RunConfig,
    differences,
)
from nas.config.yaml_source import YamlSource
from nas.evaluation.training_config import TrainingConfig

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
    read = read.with_overrides(overrides)
    draft = Draft(read.data, trust_code=trust_code)
    check(draft)
    if draft.faults:
        raise read.error(draft.faults)
    return draft.config
