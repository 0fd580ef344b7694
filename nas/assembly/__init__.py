"""Makes the parts of a run from its configuration: the only package that knows both."""

from nas.assembly.search import (
    chance_levels,
    checked_devices,
    measuring_stages,
    prepare_folder,
    search_parts,
    search_problem,
    trained_metrics,
)
from nas.assembly.stored import drawing_of, load_candidate, space_of, stored_signature, stored_subject, stored_teacher
from nas.assembly.training import (
    check_data,
    check_teacher_file,
    distillation,
    make_run_encoder,
    make_run_teacher,
    retraining_parts,
    training_plan,
    training_setting,
)

__all__ = [
    "chance_levels",
    "check_data",
    "check_teacher_file",
    "checked_devices",
    "distillation",
    "drawing_of",
    "load_candidate",
    "make_run_encoder",
    "make_run_teacher",
    "measuring_stages",
    "prepare_folder",
    "retraining_parts",
    "search_parts",
    "search_problem",
    "space_of",
    "stored_signature",
    "stored_subject",
    "stored_teacher",
    "trained_metrics",
    "training_plan",
    "training_setting",
]
