"""The near-free functions, in a module that worker processes can import."""

from nas.evaluation import Subject

N_VALUES = 8


def squared_distance(subject: Subject) -> float:
    """Return the squared distance of the genes to all zeros."""
    return float(sum(gene**2 for gene in subject.genotype.genes))


def squared_distance_to_top(subject: Subject) -> float:
    """Return the squared distance of the genes to their largest values."""
    return float(sum((N_VALUES - 1 - gene) ** 2 for gene in subject.genotype.genes))
