"""A recurrent policy that writes genotypes gene by gene and is trained by PPO on what they were worth."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import nn
from torch.nn import functional as F

from nas.controllers.base import SearchProblem
from nas.controllers.scalarized import Member, ScalarizedController
from nas.torch_tools import torch_threads
from nas.values.bounds import bounded
from nas.values.records import Record
from nas.values.scalarization import ScalarizationKind
from search_spaces.genotype import Genotype

_HIDDEN_SIZE = 64
_BASELINE_DECAY = 0.9  # of the mean reward, from batch to batch
_MAX_GRADIENT_NORM = 0.5


class GenePolicy(nn.Module):
    """An LSTM that gives each gene's distribution from the genes before it and from what is wanted.

    Args:
        n_values: Of each gene.
        n_objectives: Of the weights that say what is wanted.
    """

    def __init__(self, n_values: Sequence[int], n_objectives: int) -> None:
        super().__init__()
        self.register_buffer("_offsets", torch.tensor([0, *np.cumsum(n_values)[:-1]]), persistent=False)
        self._offsets: torch.Tensor
        self._choices = nn.Embedding(sum(n_values), _HIDDEN_SIZE)
        self._wanted = nn.Linear(n_objectives, _HIDDEN_SIZE)
        self._cell = nn.LSTM(_HIDDEN_SIZE, _HIDDEN_SIZE, batch_first=True)
        heads = [nn.Linear(_HIDDEN_SIZE, n) for n in n_values]
        for head in heads:
            nn.init.zeros_(head.weight)  # every genotype is equally likely at first
            nn.init.zeros_(head.bias)
        self._heads = nn.ModuleList(heads)

    def sample(self, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return `(B, n_genes)` genes drawn for `weights`, `(B, n_objectives)`."""
        wanted = self._wanted(weights)[:, np.newaxis]
        step, state, genes = wanted, None, []
        for gene, head in enumerate(self._heads):
            output, state = self._cell(step, state)
            drawn = torch.multinomial(F.softmax(head(output[:, 0]), dim=1), 1, generator=generator)
            step = wanted + self._choices(drawn + self._offsets[gene])
            genes.append(drawn)
        return torch.cat(genes, dim=1)

    def forward(self, genes: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `(B,)` log-probabilities of `genes`, `(B, n_genes)`, and the mean entropy of a gene, `(B,)`."""
        wanted = self._wanted(weights)[:, np.newaxis]
        steps = wanted + self._choices(genes + self._offsets)
        outputs, _ = self._cell(torch.cat([wanted, steps[:, :-1]], dim=1))
        log_probability = torch.zeros(len(genes))
        entropy = torch.zeros(len(genes))
        for gene, head in enumerate(self._heads):
            log_probabilities = F.log_softmax(head(outputs[:, gene]), dim=1)
            log_probability = log_probability + log_probabilities.gather(1, genes[:, gene : gene + 1])[:, 0]
            entropy = entropy - (log_probabilities.exp() * log_probabilities).sum(dim=1)
        return log_probability, entropy / len(self._heads)


class Ppo(ScalarizedController):
    """Learns to write good genotypes, each for weights of its own, so that one policy serves the whole front.

    A genotype's reward is the share of all that was evaluated so far which it beats under its weights.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time; the policy learns after each batch.
        learning_rate: Of the policy.
        n_updates: Gradient steps after each batch.
        clip: By which share a step may change a genotype's probability before it gains nothing more.
        entropy: How much variety is worth beside the reward.
        scalarization: How the losses are joined.
        targets: Of `scalarization: soft_constraint`, by minimised metric: the cost to come to.

    Source:
        Schulman et al. 2017, arXiv:1707.06347, clipped surrogate objective; LSTM as in Zoph et al. 2018,
        arXiv:1707.07012, and Nekrasov et al. 2019, arXiv:1810.10804.
        Differs: the policy is told the weights (Yang et al. 2019, arXiv:1908.08342); rewards are ranks, which need no
        scale; it learns from canonical genotypes, also those that others put in the place of its own.
    """

    @bounded
    def __init__(
        self,
        n_candidates: Annotated[int, Ge(1), Le(10**9)] = 200,
        batch_size: Annotated[int, Ge(1), Le(10**6)] = 10,
        learning_rate: Annotated[float, Gt(0), Le(100)] = 0.01,
        n_updates: Annotated[int, Gt(0), Le(10**6)] = 8,
        clip: Annotated[float, Gt(0), Le(100)] = 0.2,
        entropy: Annotated[float, Ge(0), Le(1e6)] = 0.01,
        scalarization: ScalarizationKind = ScalarizationKind.CHEBYSHEV,
        targets: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(n_candidates, batch_size, scalarization, targets)
        self._learning_rate = learning_rate
        self._n_updates = n_updates
        self._clip = clip
        self._entropy = entropy

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`."""
        super().setup(problem)
        seed = int(self._rng.integers(2**31))
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._policy = GenePolicy([gene.n_values for gene in problem.space.genes], len(problem.objectives))
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=self._learning_rate)
        self._known: list[Member] = []
        self._wanted: dict[Genotype, np.ndarray] = {}  # the weights that each was written for
        self._baseline: float | None = None

    def tell(self, records: Sequence[Record]) -> None:
        """Let the policy learn from the records that are no failures."""
        members = self._members(records)
        if not members:
            return
        self._known += members
        weights = np.stack([self._weights_for(member.genotype) for member in members])
        rewards = np.array([self._reward(*pair) for pair in zip(members, weights, strict=True)])
        baseline = float(rewards.mean()) if self._baseline is None else self._baseline
        self._learn([member.genotype for member in members], weights, rewards - baseline)
        self._baseline = _BASELINE_DECAY * baseline + (1 - _BASELINE_DECAY) * float(rewards.mean())
        self._wanted.clear()

    def _weights_for(self, genotype: Genotype) -> np.ndarray:
        wanted = self._wanted.get(genotype)
        return self._drawn_weights() if wanted is None else wanted

    def _propose(self, n: int) -> Iterable[Genotype]:
        weights = np.stack([self._drawn_weights() for _ in range(n)])
        with torch.no_grad(), torch_threads(1):
            drawn = self._policy.sample(torch.from_numpy(weights).float(), self._generator)
        space = self._problem.space
        proposed = [space.canonical(space.nearest(genes)) for genes in drawn.tolist()]
        self._wanted.update(zip(proposed, weights, strict=True))
        return proposed

    def _reward(self, member: Member, weights: np.ndarray) -> float:
        """Return the share of all known members that `member` beats, ties counted half."""
        values = self._ranking([*self._known, member], weights)
        others, own = values[:-1], values[-1]
        return float(((others > own) + 0.5 * (others == own)).mean())

    def _learn(self, genotypes: Sequence[Genotype], weights: np.ndarray, advantages: np.ndarray) -> None:
        genes = torch.tensor([genotype.genes for genotype in genotypes])
        wanted, gains = torch.from_numpy(weights).float(), torch.from_numpy(advantages).float()
        with torch_threads(1):
            before = self._policy(genes, wanted)[0].detach()
            for _ in range(self._n_updates):
                log_probability, entropy = self._policy(genes, wanted)
                ratio = (log_probability - before).exp()
                clipped = ratio.clamp(1 - self._clip, 1 + self._clip)
                gain = torch.minimum(ratio * gains, clipped * gains) + self._entropy * entropy
                self._optimizer.zero_grad()
                (-gain.mean()).backward()
                nn.utils.clip_grad_norm_(self._policy.parameters(), _MAX_GRADIENT_NORM)
                self._optimizer.step()
