"""Makes the parts of a run from its configuration: the only package that knows both."""

from nas.assembly.class_checks import check_data
from nas.assembly.run_checks import check_files
from nas.assembly.search import (
    checked_devices,
    executor,
    measuring_stages,
    prepare_folder,
    search_parts,
    search_problem,
    space_of,
    stored_normalization,
    stored_subject,
    trains,
)
from nas.assembly.training import (
    TrainingInputs,
    artifact_cache,
    candidate_training,
    distillation,
    make_run_encoder,
    make_run_teacher,
    retraining_parts,
    search_space,
    training_inputs,
)

__all__ = [
    "TrainingInputs",
    "artifact_cache",
    "candidate_training",
    "check_data",
    "check_files",
    "checked_devices",
    "distillation",
    "executor",
    "make_run_encoder",
    "make_run_teacher",
    "measuring_stages",
    "prepare_folder",
    "retraining_parts",
    "search_parts",
    "search_problem",
    "search_space",
    "space_of",
    "stored_normalization",
    "stored_subject",
    "training_inputs",
    "trains",
]
