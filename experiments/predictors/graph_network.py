"""A graph network in which information flows along the cell as data does, trained to rank pairs."""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nas.predictors import FeatureGroups, Prediction, Predictor
from search_spaces.cell_graph import CellGraph

_LEAST_SPREAD = 1e-3


class GraphNetwork(Predictor):
    """A few graph networks with other initial weights; their disagreement is the spread.

    Their scores are brought to the scale of the values by a straight line. Reads the group `genes`.

    Args:
        graph: The cell; every gene chooses the operation of an edge.
        n_networks: How many.
        width: Numbers that flow along an edge.
        n_steps: Of the optimiser, each on all pairs of a random half of the samples.
        seed: Of weights and pairs.

    Source:
        Ning et al. 2020, GATES, arXiv:2004.01899: operations as gates of what flows, a hinge loss on pairs.
    """

    def __init__(
        self, graph: CellGraph, n_networks: int = 3, width: int = 48, n_steps: int = 500, seed: int = 0
    ) -> None:
        self._graph = graph
        self._n_networks = n_networks
        self._width = width
        self._n_steps = n_steps
        self._seed = seed

    def fit(self, features: FeatureGroups, values: np.ndarray) -> None:
        """Train all networks anew."""
        genes, targets = _tensor(features.columns["genes"]), _tensor(values)
        self._networks: list[tuple[_Flow, float, float]] = []
        for number in range(self._n_networks):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed * 1000 + number)
                network = _Flow(self._graph, self._width)
                _train(network, genes, targets, self._n_steps)
            scores = network.score(genes)
            slope, offset = np.polyfit(scores, values, 1) if np.ptp(scores) > 0 else (0.0, values.mean())
            self._networks.append((network, float(slope), float(offset)))

    def predict(self, features: FeatureGroups) -> Prediction:
        """Return mean and standard deviation over the networks."""
        genes = _tensor(features.columns["genes"])
        means = np.stack([slope * network.score(genes) + offset for network, slope, offset in self._networks])
        return Prediction(means.mean(axis=0), np.maximum(means.std(axis=0), _LEAST_SPREAD))

    def held_out(self) -> np.ndarray:
        """Not known: every network saw every genotype."""
        return np.array([])


class _Flow(nn.Module):
    """Two rounds of what flows from the inputs to the outputs, gated by the operations on its way."""

    def __init__(self, graph: CellGraph, width: int) -> None:
        super().__init__()
        self._graph = graph
        self._order = sorted(range(len(graph.edges)), key=lambda edge: graph.edges[edge])
        self._carries = torch.tensor([float(not graph.is_zero(v)) for v in range(len(graph.operations))])
        self.start = nn.Parameter(torch.randn(width))
        self.gates = nn.ModuleList(nn.Linear(len(graph.operations), width) for _ in range(2))
        self.changes = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, genes: Tensor) -> Tensor:
        """Map one-hot operations `(n, n_edges * n_operations)` to scores `(n,)`."""
        operations = genes.reshape(len(genes), len(self._graph.edges), len(self._graph.operations))
        start = self.start.expand(len(genes), -1)
        for gate, change in zip(self.gates, self.changes, strict=True):
            states = dict.fromkeys(self._graph.inputs, start)
            for edge in self._order:
                source, target = self._graph.edges[edge]
                passed = torch.sigmoid(gate(operations[:, edge])) * torch.relu(change(states[source]))
                passed = passed * (operations[:, edge] @ self._carries)[:, None]
                states[target] = states[target] + passed if target in states else passed
            end = torch.stack([states[node] for node in sorted(self._graph.outputs)]).sum(dim=0)
            start = start + end
        return cast(Tensor, self.head(end)).squeeze(1)

    def score(self, genes: Tensor) -> np.ndarray:
        """Return scores without gradients."""
        with torch.no_grad():
            return np.asarray(self(genes).double().numpy())


def _train(network: _Flow, genes: Tensor, targets: Tensor, n_steps: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(n_steps):
        rows = torch.randperm(len(genes))[: max(len(genes) // 2, 2)]
        scores, values = network(genes[rows]), targets[rows]
        signs = (values[:, None] - values).sign()
        loss = (torch.relu(0.1 - signs * (scores[:, None] - scores)) * signs.abs()).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
