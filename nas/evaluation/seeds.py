"""Trainings under several seeds: means and standard deviations of scores."""

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import replace

from nas.evaluation.base import Stage, Subject
from nas.values.recipes import EpochSummary
from nas.values.records import Observation


def seed_number(seed: int, number: int) -> int:
    """Return the seed of a candidate's training with this number: 0 is the candidate's own."""
    if number == 0:
        return seed
    return int(hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()[:8], 16) >> 1


class SeededStage(Stage):
    """Runs a stage once for each seed and gives the means; their conditions hold every reading and the spread.

    Args:
        stage: One that depends on the seed, such as a training.
        numbers: Which of a candidate's seeds, by `seed_number`. The candidate's own comes last, so that the weights
            that a training keeps are its.
    """

    def __init__(self, stage: Stage, numbers: Sequence[int]) -> None:
        self.name, self.needs, self.provides = stage.name, stage.needs, stage.provides
        self._stage = stage
        self._numbers = sorted(numbers, reverse=True)

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return the mean of each metric over the seeds.

        Raises:
            Exception: Whatever the stage raises under one of the seeds.
        """
        runs = [self._stage.run(self._twin(subject, place)) for place in range(len(self._numbers))]
        by_metric: dict[tuple[str, str], list[Observation]] = {}
        for observation in (o for run in runs for o in run):
            by_metric.setdefault((observation.stage, observation.metric), []).append(observation)
        return [self._mean(observations) for observations in by_metric.values()]

    def _twin(self, subject: Subject, place: int) -> Subject:
        """Return `subject` with the seed at this place, its epochs counted over all of them."""
        seed = seed_number(subject.seed, self._numbers[place])

        def on_epoch(summary: EpochSummary) -> None:
            n_epochs = summary.n_epochs
            whole = replace(summary, epoch=place * n_epochs + summary.epoch, n_epochs=len(self._numbers) * n_epochs)
            subject.on_epoch(whole)

        return replace(subject, candidate=replace(subject.candidate, seed=seed), on_epoch=on_epoch)

    def _mean(self, observations: Sequence[Observation]) -> Observation:
        values = [observation.value for observation in observations]
        spread = {"spread": statistics.stdev(values)} if len(values) > 1 else {}
        conditions = {**observations[-1].conditions, "seeds": self._numbers, "rounds": values, **spread}
        return replace(observations[-1], value=statistics.fmean(values), conditions=conditions)
