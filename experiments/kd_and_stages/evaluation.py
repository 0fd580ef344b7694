"""One candidate's training, in a file of its own, which worker processes can import."""

import time

import torch

from nas.evaluation import Ended, Evaluator, Event, Job, Reading
from nas.values.records import RecordState

METRIC = "mean_iou"


def evaluate(evaluator: Evaluator, job: Job) -> tuple[float, float]:
    """Return a candidate's score and the seconds that it took; runs in a process of its own thread.

    On a CPU these are seconds of processor time: the same as those of a clock on an idle machine, and fair on one
    that is not.
    """
    torch.set_num_threads(1)
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    scores: dict[str, float] = {}

    def take(event: Event) -> None:
        if isinstance(event, Reading):
            scores.update({o.metric: o.value for o in event.observations})
        if isinstance(event, Ended) and event.state is not RecordState.COMPLETE:
            raise RuntimeError(f"{event.candidate} ended as {event.state}: {event.failure or event.pruning}")

    start = clock()
    evaluator.run(job, take)
    return scores[METRIC], clock() - start
