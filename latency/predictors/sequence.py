"""Networks that read a model layer by layer: an LSTM, and a self-attention encoder of the same tokens."""

from typing import Literal

import numpy as np
import torch
from torch import nn

from latency.predictors.base import Encodings, LatencyPrediction, LatencyPredictor, checked

_WIDTH = 48
_N_EPOCHS = 150
_BATCH_SIZE = 32
_LEARNING_RATE = 5e-3
_N_AT_ONCE = 512
_HELD_OUT = 0.15  # of the readings: they tell the spread


class SequencePredictor(LatencyPredictor):
    """A recurrent or self-attention network over the layers, whose outputs add up to the latency.

    What each layer takes, given those around it, is positive by a softplus: the network's own form of an additive
    table. It needs a few hundred readings.

    Args:
        kind: `lstm`, or `attention`.
        seed: Of the weights and the order of the readings.

    Source:
        The tokens and the LSTM follow Dudziak et al. 2020 (BRP-NAS, arXiv:2007.08668) in learning a device from its
        readings alone; self-attention as in Vaswani et al. 2017, arXiv:1706.03762.
    """

    def __init__(self, kind: Literal["lstm", "attention"] = "lstm", seed: int = 0) -> None:
        self._kind: Literal["lstm", "attention"] = kind
        self._seed = seed

    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Train on errors of the logarithm; the spread is that of readings held out from a first training."""
        latencies = checked(encodings, latencies_ms, least=10)
        self._mean_ms = float(latencies.mean())
        self._scale = np.maximum(np.abs(encodings.tokens).max(axis=(0, 1)), 1e-6)
        order = np.random.default_rng(self._seed).permutation(len(latencies))
        n = max(2, round(_HELD_OUT * len(latencies)))
        self._train(encodings.take(order[n:]), latencies[order[n:]])
        errors = self._mean(encodings.take(order[:n])) / latencies[order[:n]] - 1
        self._spread = float(np.sqrt((errors**2).mean()))
        self._train(encodings, latencies)

    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Predict, with the relative error of the readings held out as spread."""
        mean = self._mean(encodings)
        return LatencyPrediction(mean, mean * self._spread)

    def _train(self, encodings: Encodings, latencies: np.ndarray) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self._network = _LayerSum(encodings.tokens.shape[2], self._kind)
            optimizer = torch.optim.AdamW(self._network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-3)
            tokens, lengths = self._tensors(encodings)
            targets = torch.tensor(np.log(latencies / self._mean_ms), dtype=torch.float32)
            n_steps = _N_EPOCHS * -(-len(targets) // _BATCH_SIZE)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=n_steps)
            for _ in range(_N_EPOCHS):
                for rows in torch.split(torch.randperm(len(targets)), _BATCH_SIZE):
                    said = self._network(tokens[rows], lengths[rows])
                    loss = nn.functional.huber_loss(said.log(), targets[rows], delta=0.1)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()

    @torch.no_grad()
    def _mean(self, encodings: Encodings) -> np.ndarray:
        tokens, lengths = self._tensors(encodings)
        batches = zip(torch.split(tokens, _N_AT_ONCE), torch.split(lengths, _N_AT_ONCE), strict=True)
        said = [self._network(*batch) for batch in batches]
        mean: np.ndarray = torch.cat(said).numpy().astype(np.float64) * self._mean_ms
        return mean

    def _tensors(self, encodings: Encodings) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.from_numpy((encodings.tokens / self._scale).astype(np.float32))
        return tokens, torch.from_numpy(encodings.n_layers)


class _LayerSum(nn.Module):
    """Adds up what each layer takes, given those around it."""

    def __init__(self, n_numbers: int, kind: Literal["lstm", "attention"]) -> None:
        super().__init__()
        self._enter = nn.Linear(n_numbers, _WIDTH)
        self._mix: nn.Module
        if kind == "lstm":
            self._mix = nn.LSTM(_WIDTH, _WIDTH // 2, batch_first=True, bidirectional=True)
        else:
            self._mix = nn.TransformerEncoderLayer(_WIDTH, 4, 2 * _WIDTH, dropout=0.0, batch_first=True)
        self._leave = nn.Linear(_WIDTH, 1)
        self._base = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return `(n,)`, a share of the mean latency; `tokens` is `(n, length, n_numbers)`."""
        is_padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
        entered = nn.functional.gelu(self._enter(tokens))
        if isinstance(self._mix, nn.LSTM):
            mixed = self._mix(entered)[0]
        else:
            mixed = self._mix(entered, src_key_padding_mask=is_padding)
        each = nn.functional.softplus(self._leave(mixed)[..., 0]).masked_fill(is_padding, 0.0)
        total: torch.Tensor = each.sum(dim=1) / tokens.shape[1] + nn.functional.softplus(self._base)
        return total
