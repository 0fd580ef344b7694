"""What the records of a run tell against it: a search space, a metric, a bound or a recipe that misleads the search."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nas.config.yaml_source import YamlSource
from nas.errors import InputError
from nas.store.folding import CONFIRMATION
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.objectives import Constraint, Direction, Objective
from nas.values.records import Observation, Record

_FEW = 20  # records: below, patterns are chance
_SAME_SIZE = 1.02  # sizes within two percent are one
_MAX_LAYERS = 8
_TIED_SHARE = 0.3
_END = 0.1  # of the range of scores
_END_SHARE, _ENDS_SHARE = 0.2, 0.8
_COLLAPSED = 0.4  # of the first batch's distance
_COLLAPSED_GENES = 0.15  # of all genes
_REJECTED_SHARE, _FAILED_SHARE = 0.8, 0.2
_DISGUISED = 0.98
_BETTER_THAN_TEACHER = 0.25
_LOSS_LEFT = 0.98
_DISTURBED_SHARE = 0.3
_CHANGED_READING = 0.25
_NOISE = 1.0
_STILL_MOVES, _LAST_PART, _MANY = 0.05, 0.1, 40


@dataclass(frozen=True)
class Diagnosis:
    """A pattern that weakens what a run says.

    Attributes:
        name: Of the pattern, the same in every run.
        text: What is the matter.
        evidence: The figures that say so.
        advice: What to try.
    """

    name: str
    text: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class Evidence:
    """What a diagnosis looks at.

    Attributes:
        run: The run.
        readings: Every observation, in the order taken.
        distillation: The section of the run's configuration; `None` where nothing is learnt from a teacher.
    """

    run: Run
    readings: Sequence[Observation] = ()
    distillation: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, folder: RunFolder, distillation: Mapping[str, Any] | None = None) -> "Evidence":
        """Read an open run; it may be running meanwhile."""
        return cls(Run.of(folder), folder.store.observations(), distillation)

    @classmethod
    def load(cls, path: Path) -> "Evidence":
        """Read a run from its folder.

        Raises:
            RunFolderError: If there is none.
        """
        with RunFolder.read(path) as folder:
            return cls.of(folder, _distillation(path / "config.yaml"))

    @property
    def complete(self) -> list[Record]:
        """The records that count."""
        return [record for record in self.run.records if record.is_complete]

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of all complete records that have it."""
        return np.array([record.metrics[metric] for record in self.complete if metric in record.metrics])

    @property
    def scores(self) -> list[Objective]:
        """The objectives that are scores."""
        return [o for o in self.run.objectives if o.metric in self.run.scores or o.direction is Direction.MAXIMIZE]


def _distillation(configuration: Path) -> Mapping[str, Any] | None:
    """Return the section of a stored configuration, which is complete with defaults; `None` where it is off."""
    try:
        section = YamlSource.read(configuration).data.get("distillation")
    except InputError:
        return None
    return section if isinstance(section, dict) and section.get("enabled", True) else None


def diagnose(evidence: Evidence) -> list[Diagnosis]:
    """Return every pattern that a run shows; none for a healthy one."""
    return [found for look in LOOKS for found in look(evidence)]


def layered_sizes(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for parameter counts that lie in a few layers: the space is simpler than it seems."""
    sizes = np.array([r.metrics["n_params"] for r in evidence.run.records if "n_params" in r.metrics])
    if len(sizes) < _FEW:
        return
    layers = _layers(np.sort(sizes))
    if layers <= min(_MAX_LAYERS, max(2, len(sizes) // 10)):
        yield Diagnosis(
            "layered parameter counts",
            "The networks come in few sizes: most genes change nothing in what a network costs.",
            f"{len(sizes)} networks have {layers} parameter counts that differ by more than 2 %",
            "Let widths, depths or kernel sizes vary, or leave n_params out of the objectives.",
        )


def _layers(ascending: np.ndarray) -> int:
    """Return how many different sizes there are, those within two percent of a layer's smallest being one."""
    layers, start = 0, -np.inf
    for size in ascending:
        if size > start * _SAME_SIZE or layers == 0:
            layers, start = layers + 1, size
    return layers


def scores_without_order(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for scores that are equal, or all at both ends: the metric does not tell candidates apart."""
    for objective in evidence.scores:
        scores = evidence.values(objective.metric)
        if len(scores) < _FEW:
            continue
        value, n_equal = Counter(scores.round(6)).most_common(1)[0]
        if n_equal / len(scores) >= _TIED_SHARE:
            yield Diagnosis(
                "tied scores",
                f"{objective.metric} is the same for many candidates: it does not tell them apart.",
                f"{n_equal} of {len(scores)} candidates have {objective.metric} {value:.4g}",
                "Train longer, take more validation images, a harder cut of the data, or a finer score.",
            )
            continue
        low, high = scores.min(), scores.max()
        n_low = int((scores <= low + _END * (high - low)).sum())
        n_high = int((scores >= high - _END * (high - low)).sum())
        at_ends = [n / len(scores) for n in (n_low, n_high)]
        if min(at_ends) >= _END_SHARE and sum(at_ends) >= _ENDS_SHARE:
            yield Diagnosis(
                "scores at both ends",
                f"{objective.metric} is either good or bad: trainings succeed or fail as a whole.",
                f"of {len(scores)} candidates {n_low} lie in the lowest tenth of {low:.4g} .. {high:.4g}, {n_high} in "
                "the highest",
                "Lower the learning rate, train longer, or bound the score from below; look at the curve of a bad one.",
            )


def collapsed_population(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for batches whose candidates have become nearly the same."""
    distances = batch_distances(evidence.run.records)
    if len(distances) < 3:
        return
    first, last = distances[0][1], float(np.mean([distance for _, distance in distances[-2:]]))
    if last <= min(_COLLAPSED * first, _COLLAPSED_GENES):
        yield Diagnosis(
            "collapsed population",
            "The search asks for nearly the same network again and again.",
            f"two candidates of a batch differ in {100 * last:.0f} % of their genes at the end, {100 * first:.0f} % at "
            "the start",
            "Take a larger population or mutation rate, another seed, or stop here: the search has converged.",
        )


def batch_distances(records: Sequence[Record]) -> list[tuple[int, float]]:
    """Return by batch of at least four the mean share of genes in which two of its candidates differ.

    Args:
        records: In the order of asking.
    """
    found = []
    for number, batch in groupby(records, key=lambda record: record.batch):
        genes = [record.candidate.genotype.genes for record in batch]
        if len(genes) >= 4 and len({len(one) for one in genes}) == 1 and genes[0]:
            array = np.array(genes)
            n_pairs = len(genes) * (len(genes) - 1) / 2
            n_different = sum(float((array[i] != array[i + 1 :]).mean(axis=1).sum()) for i in range(len(array) - 1))
            found.append((number, n_different / n_pairs))
    return found


def rejecting_bounds(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for a bound that hardly any candidate keeps."""
    ended = evidence.run.ended
    if len(ended) < _FEW // 2:
        return
    for constraint in evidence.run.constraints:
        values = [record.metrics[constraint.metric] for record in ended if constraint.metric in record.metrics]
        broken = Counter(v.metric for record in ended for v in record.violations)[constraint.metric]
        if broken / len(ended) >= _REJECTED_SHARE:
            yield Diagnosis(
                "a bound that rejects nearly everything",
                f"Hardly any network keeps the bound on {constraint.metric} ({_bounds(constraint)}).",
                f"{broken} of {len(ended)} candidates broke it; {constraint.metric} was {min(values):,.6g} .. "
                f"{max(values):,.6g}, half of them below {float(np.median(values)):,.6g}",
                "Loosen the bound, or give the space smaller networks: fewer cells, narrower widths.",
            )


def _bounds(constraint: Constraint) -> str:
    sides = {"at least": constraint.min, "at most": constraint.max}
    return ", ".join(f"{side} {bound:,.6g}" for side, bound in sides.items() if bound is not None)


def failures(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for evaluations that fail often."""
    ended = evidence.run.ended
    failed = [record for record in ended if record.failure]
    if len(ended) >= _FEW // 2 and len(failed) / len(ended) >= _FAILED_SHARE:
        reason, n = Counter(record.reason for record in failed).most_common(1)[0]
        yield Diagnosis(
            "many failures",
            "Many evaluations gave no number.",
            f"{len(failed)} of {len(ended)} candidates failed; {n} of them: {reason}",
            f"nas show {evidence.run.path} --candidate {failed[-1].id} shows a traceback.",
        )


def disguised_objectives(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for two objectives that ask for the same."""
    complete = evidence.complete
    if len(complete) < _FEW:
        return
    objectives = evidence.run.objectives
    for i, one in enumerate(objectives):
        for other in objectives[i + 1 :]:
            losses = [[o.sign * record.metrics[o.metric] for record in complete] for o in (one, other)]
            if min(len(set(values)) for values in losses) < 3:
                continue
            rho = float(spearmanr(*losses).statistic)
            if rho >= _DISGUISED:
                yield Diagnosis(
                    "an objective that is another in disguise",
                    f"{one.metric} and {other.metric} put the candidates in the same order.",
                    f"Spearman's rho {rho:.3f} over {len(complete)} candidates",
                    f"Leave one of them out, e.g. {other.metric}: the front gets smaller and the search quicker.",
                )


def weak_teacher(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for a teacher that its students surpass."""
    of_teacher = (evidence.run.teacher or {}).get("scores", {})
    for objective in evidence.scores:
        scores = evidence.values(objective.metric)
        if objective.metric not in of_teacher or len(scores) < _FEW // 4:
            continue
        n_better = int((scores > of_teacher[objective.metric]).sum())
        if n_better / len(scores) >= _BETTER_THAN_TEACHER:
            yield Diagnosis(
                "a teacher worse than its students",
                "Students learn from a teacher that knows less than they do.",
                f"{n_better} of {len(scores)} candidates have a better {objective.metric} than the teacher's "
                f"{of_teacher[objective.metric]:.4f}; the best has {scores.max():.4f}",
                "Train the teacher longer, take a larger one or weights that you have; or lower distillation.weight.",
            )


def drowned_targets(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for distillation that keeps the loss of the targets from falling."""
    if evidence.distillation is None:
        return
    curves = [record.epoch_losses for record in evidence.complete if len(record.epoch_losses) >= 2]
    if len(curves) < _FEW // 4:
        return
    left = np.array([curve[-1] / curve[0] for curve in curves if curve[0] > 0])
    if len(left) and float(np.median(left)) >= _LOSS_LEFT:
        yield Diagnosis(
            "distillation that drowns the targets",
            "While networks follow the teacher, the loss of the targets does not fall.",
            f"after the last epoch it is {float(np.median(left)):.2f} times that of the first (median of {len(left)} "
            f"trainings), with distillation.weight {evidence.distillation.get('weight')}",
            "Lower distillation.weight or its temperature (the loss grows with its square), or try enabled: false.",
        )


def unstable_readings(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for latencies that something disturbed, or that came out otherwise when they were measured again."""
    by_metric: dict[str, list[Record]] = {}
    for record in evidence.run.records:
        for metric in record.metrics:
            if "rounds" in record.conditions.get(metric, {}) or metric.startswith("latency_ms"):
                by_metric.setdefault(metric, []).append(record)
    for metric, records in by_metric.items():
        n_disturbed = sum(metric in record.undisturbed for record in records)
        changes = _changes(evidence.readings, metric)
        advice = (
            "Keep the machine free of other work while it measures, or measure on another; nas doctor shows the device."
        )
        if len(records) >= _FEW // 4 and n_disturbed / len(records) >= _DISTURBED_SHARE:
            yield Diagnosis(
                "unstable readings",
                f"Something else ran while {metric} was measured.",
                f"{n_disturbed} of {len(records)} readings were disturbed",
                advice,
            )
        elif len(changes) >= 3 and float(np.median(changes)) >= _CHANGED_READING:
            yield Diagnosis(
                "unstable readings",
                f"{metric} came out otherwise when the front was measured again.",
                f"by {100 * float(np.median(changes)):.0f} % (median of {len(changes)} networks)",
                advice,
            )


def _changes(readings: Sequence[Observation], metric: str) -> list[float]:
    """Return by how much the confirmed reading of each candidate differs from its first, as a share of that."""
    first: dict[str, float] = {}
    changed = {}
    for reading in readings:
        if reading.metric == metric:
            if reading.stage == CONFIRMATION and first.get(reading.candidate):
                changed[reading.candidate] = abs(reading.value / first[reading.candidate] - 1)
            first.setdefault(reading.candidate, reading.value)
    return list(changed.values())


def ranking_by_noise(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for scores whose spread over seeds is as large as that over candidates."""
    for objective in evidence.scores:
        metric = objective.metric
        spreads = [record.spread(metric) for record in evidence.complete]
        known = [spread for spread in spreads if spread is not None]
        scores = evidence.values(metric)
        if len(known) < 3 or len(scores) < _FEW // 2:
            continue
        of_seeds, of_candidates = float(np.sqrt(np.mean(np.square(known)))), float(scores.std())
        if of_seeds >= _NOISE * of_candidates:
            yield Diagnosis(
                "quick scores that rank by noise",
                f"Another seed changes {metric} as much as another network does.",
                f"standard deviation over seeds {of_seeds:.4f} ({len(known)} networks), over candidates "
                f"{of_candidates:.4f}",
                "Train longer, take more validation images, or seeds_per_candidate: 3.",
            )


def moving_front(evidence: Evidence) -> Iterator[Diagnosis]:
    """Look for a finished search whose hypervolume was still growing."""
    volumes = evidence.run.hypervolumes()
    if not evidence.run.finished_size or len(volumes) < _MANY or volumes[-1] <= 0:
        return
    n_last = int(len(volumes) * _LAST_PART)
    gained = float(1 - volumes[-1 - n_last] / volumes[-1])
    if gained >= _STILL_MOVES:
        yield Diagnosis(
            "a front that still moves",
            "The search ended while it was still finding better networks.",
            f"the last {n_last} of {len(volumes)} evaluations added {100 * gained:.1f} % of the hypervolume",
            "Go on: raise the budget or the number of generations, and pass --resume.",
        )


Look = Callable[[Evidence], Iterator[Diagnosis]]
LOOKS: tuple[Look, ...] = (
    failures,
    rejecting_bounds,
    layered_sizes,
    scores_without_order,
    ranking_by_noise,
    disguised_objectives,
    weak_teacher,
    drowned_targets,
    unstable_readings,
    collapsed_population,
    moving_front,
)
