"""Tasks: what a network's output means, its loss and its scores."""

from nas.tasks.base import Scorer, Task
from nas.tasks.classification import Classification
from nas.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
}

__all__ = ["TASKS", "Classification", "Scorer", "Segmentation", "Task"]
