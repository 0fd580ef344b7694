"""When a training is over before its last epoch: its score has stopped rising."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


class Plateau:
    """Watches a score after each epoch, and keeps the best weights.

    Args:
        score: Of a network in eval mode; more is better.
        patience: Epochs without a better score after which the training is over; at least 1.
    """

    def __init__(self, score: Callable[[nn.Module], float], patience: int) -> None:
        self._score = score
        self._patience = patience
        self._best = -float("inf")
        self._n_since = 0
        self._n_epochs = 0
        self.best_epoch = 0
        self._weights: dict[str, torch.Tensor] = {}

    def is_reached(self, model: nn.Module) -> bool:
        """Score `model`, as it would be if the training ended now; return whether it should."""
        self._n_epochs += 1
        value = self._score(model)
        if value > self._best:
            self._best, self._n_since, self.best_epoch = value, 0, self._n_epochs
            self._weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        else:
            self._n_since += 1
        return self._n_since >= self._patience

    def restore(self, model: nn.Module) -> None:
        """Give `model` the best weights."""
        model.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        counts = {"n_since": self._n_since, "n_epochs": self._n_epochs, "best_epoch": self.best_epoch}
        return {"best": self._best, "weights": self._weights, **counts}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._best, self._weights = state["best"], dict(state["weights"])
        self._n_since, self._n_epochs, self.best_epoch = state["n_since"], state["n_epochs"], state["best_epoch"]
