"""Who is trained on, who judges, who is kept for the test: the rule for data that does not say so itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.data.base import Split


@dataclass(frozen=True)
class SplitRule:
    """Shares of the training examples that are set aside where a split has no folder or file of its own.

    Attributes:
        validation_fraction: For validation.
        test_fraction: For the test; 0 for none.
        seed: Of the choice.
    """

    validation_fraction: float = 0.1
    test_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction}")
        if not 0 <= self.test_fraction < 1:
            raise ValueError(f"test_fraction must lie between 0 and 1, got {self.test_fraction}")
        if self.validation_fraction + self.test_fraction >= 1:
            left = "must leave something to train on, together with validation_fraction"
            raise ValueError(f"test_fraction {left}, got {self.test_fraction} and {self.validation_fraction}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    def divide(self, labels: Sequence[int], *, has_validation: bool) -> dict[Split, np.ndarray]:
        """Return the rows of the training examples that go to each split, in order.

        Args:
            labels: The class of each example; all equal where classes do not matter.
            has_validation: Whether validation has examples of its own.
        """
        rows = np.arange(len(labels))
        of_test = np.zeros(len(labels), dtype=bool)
        if self.test_fraction:
            of_test = choose_share(labels, self.test_fraction, np.random.default_rng([self.seed, 1]))
        kept = rows[~of_test]
        of_validation = np.zeros(len(kept), dtype=bool)
        if not has_validation:
            of_validation = choose_validation(
                np.asarray(labels, dtype=np.int64)[kept], self.validation_fraction, self.seed
            )
        return {Split.TRAIN: kept[~of_validation], Split.VALIDATION: kept[of_validation], Split.TEST: rows[of_test]}

    def sentence(self, source: str, numbers: Mapping[Split, int], own: Mapping[Split, str]) -> str:
        """Return one line that tells sizes and the rule.

        Args:
            source: What the training examples are in.
            numbers: How many examples training and validation have, and the test where it is chosen here.
            own: What the splits are in that have something of their own.
        """
        chosen = f"of {source}, chosen by seed {self.seed}"
        validation = own.get(Split.VALIDATION) or f"{self.validation_fraction:g} {chosen}"
        if Split.TEST in own:
            test = f"the test is in {own[Split.TEST]}"
        elif self.test_fraction:
            test = f"{numbers[Split.TEST]} for the test ({self.test_fraction:g} {chosen})"
        else:
            test = "there is no test split (nas retrain needs one: data.test_fraction sets a part aside)"
        return (
            f"Data: {numbers[Split.TRAIN]} for training ({source}), "
            f"{numbers[Split.VALIDATION]} for validation ({validation}); {test}."
        )


def choose_validation(labels: Sequence[int] | np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return which examples are for validation, `(n,)` bool, the same share of each class.

    Of a class with two examples or more at least one goes to each side; a single one is for training.

    Args:
        labels: The class of each example; all equal where classes do not matter.
        fraction: The share for validation.
        seed: Of the choice.
    """
    return choose_share(labels, fraction, np.random.default_rng(seed))


def choose_share(labels: Sequence[int] | np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return which examples are in a share of each class, `(n,)` bool; see `choose_validation`."""
    classes = np.asarray(labels)
    chosen = np.zeros(len(classes), dtype=bool)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        n_chosen = min(max(round(fraction * len(members)), 1), len(members) - 1)
        chosen[members[:n_chosen]] = True
    return chosen
