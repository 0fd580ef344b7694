"""The evaluation of a candidate: stages, the evaluator that runs them, and the rules of verdicts."""

from nas.evaluation.base import ModelSignature, Need, Stage, Subject
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job, Progress, Reading
from nas.evaluation.seeds import SeededStage
from nas.evaluation.stages import ComplexityStage, DeviceStage, FunctionStage, TrainingStage
from nas.evaluation.table import TableStage

__all__ = [
    "ComplexityStage",
    "DeviceStage",
    "Ended",
    "Evaluator",
    "Event",
    "FunctionStage",
    "Job",
    "ModelSignature",
    "Need",
    "Progress",
    "Reading",
    "SeededStage",
    "Stage",
    "Subject",
    "TableStage",
    "TrainingStage",
]
