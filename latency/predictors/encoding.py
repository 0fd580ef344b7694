"""Encodes sequences of layers as the numbers that predictors learn from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency.predictors.base import Encodings
from latency.predictors.layers import Layer
from latency.predictors.lookup import GROUP, LookupTable

_NUMBERS = ("macs", "read", "written", "weights")
_ROOT = 0.5  # exponent of the second sums of costs: small layers use a processor badly
_FAR = 0.25  # of the range of what was learnt from, by which a feature may lie outside it


@dataclass(frozen=True)
class LayerEncoder:
    """Encodes sequences of layers by the kinds of those that are learnt from.

    Attributes:
        kinds: Of layers, sorted.
        ranges: Least and most layers of each kind in the models learnt from.
        table: What layers take alone; `None` if nobody measured that.
    """

    kinds: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    table: LookupTable | None = None

    @classmethod
    def of(cls, models: Sequence[Sequence[Layer]], table: LookupTable | None = None) -> "LayerEncoder":
        """Return the encoder for models like these; `table` as of the class.

        Raises:
            ValueError: If there are none.
        """
        if not models:
            raise ValueError("models must hold one at least, got none")
        kinds = tuple(sorted({layer.kind for layers in models for layer in layers}))
        counts = [Counter(layer.kind for layer in layers) for layers in models]
        return cls(kinds, tuple((min(c[kind] for c in counts), max(c[kind] for c in counts)) for kind in kinds), table)

    def encode(self, models: Sequence[Sequence[Layer]]) -> Encodings:
        """Return the encodings; layers of unknown kinds count in the sums over all layers alone."""
        index = {kind: place for place, kind in enumerate(self.kinds)}
        n_kinds, longest = len(self.kinds), max((len(layers) for layers in models), default=0)
        counts = np.zeros((len(models), n_kinds))
        sums, roots = (np.zeros((len(models), n_kinds + 1, len(_NUMBERS))) for _ in range(2))
        tokens = np.zeros((len(models), longest, n_kinds + len(_NUMBERS) + 1), np.float32)
        for row, layers in enumerate(models):
            for place, layer in enumerate(layers):
                kind = index.get(layer.kind, n_kinds)
                numbers = np.array(layer.numbers, float)
                for where in {kind, n_kinds}:
                    sums[row, where] += numbers
                    roots[row, where] += numbers**_ROOT
                if kind < n_kinds:
                    counts[row, kind] += 1
                    tokens[row, place, kind] = 1
                tokens[row, place, n_kinds:-1] = np.log1p(numbers) / 20
                tokens[row, place, -1] = place / longest
        groups = {"operations": counts}
        for number, name in enumerate(_NUMBERS):
            groups[f"costs.{name}"] = sums[:, :, number]
            groups[f"roots.{name}"] = roots[:, :, number]
        if self.table is not None:
            groups[GROUP] = self.table.sums(models)[:, None]
        return Encodings(groups, tokens, np.array([len(layers) for layers in models]))

    def doubts(self, layers: Sequence[Layer]) -> tuple[str, ...]:
        """Return in words why nothing learnt may hold for a model: unknown layers, or many more or fewer of a kind."""
        unknown = sorted({layer.kind for layer in layers} - set(self.kinds))
        found = [f"layers that nothing is known of: {', '.join(unknown)}"] if unknown else []
        counts = Counter(layer.kind for layer in layers)
        for kind, (low, high) in zip(self.kinds, self.ranges, strict=True):
            slack = max(1.0, _FAR * (high - low))
            if not low - slack <= counts[kind] <= high + slack:
                found.append(f"{counts[kind]} layers {kind!r}, where {low} to {high} were measured")
        return tuple(found)
