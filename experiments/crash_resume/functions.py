"""Metrics that need no training, in a module that worker processes can import."""

import time

from nas.evaluation import Subject


def score(subject: Subject) -> float:
    """Return a number that the genes alone determine, after a moment in which the process may be killed."""
    time.sleep(0.01)
    return sum((gene * (place + 3)) % 7 for place, gene in enumerate(subject.genotype.genes)) / 7.0


def price(subject: Subject) -> float:
    """Return the sum of the genes."""
    return float(sum(subject.genotype.genes))
