"""Makes the parts of a run from its configuration: the only package that knows both."""

from nas.assembly.search import (
    chance_levels,
    checked_devices,
    measuring_stages,
    prepare_folder,
    search_parts,
    search_problem,
    space_of,
    stored_normalization,
    stored_subject,
    trained_metrics,
)
from nas.assembly.training import (
    TrainingInputs,
    candidate_training,
    check_data,
    check_teacher_file,
    distillation,
    make_run_encoder,
    make_run_teacher,
    retraining_parts,
    training_inputs,
    training_plan,
)

__all__ = [
    "TrainingInputs",
    "candidate_training",
    "chance_levels",
    "check_data",
    "check_teacher_file",
    "checked_devices",
    "distillation",
    "make_run_encoder",
    "make_run_teacher",
    "measuring_stages",
    "prepare_folder",
    "retraining_parts",
    "search_parts",
    "search_problem",
    "space_of",
    "stored_normalization",
    "stored_subject",
    "trained_metrics",
    "training_inputs",
    "training_plan",
]
