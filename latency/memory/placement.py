"""Where in one block of memory each tensor lies, and what is lost between them."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from latency.memory.lifetimes import Lifetime


class Fit(StrEnum):
    """Which gap an allocator takes that does not know the future."""

    FIRST = "first"
    """The lowest one that is large enough."""

    BEST = "best"
    """The smallest one that is large enough; of equal ones the lowest."""


@dataclass(frozen=True)
class Placement:
    """An address for each lifetime; those that overlap in time lie apart.

    Attributes:
        offsets: Bytes from the start of the block, in the order of the lifetimes given.
        n_bytes: What the block needs.
        peak_bytes: The largest sum alive at once: no placement needs less.
    """

    offsets: tuple[int, ...]
    n_bytes: int
    peak_bytes: int

    @property
    def fragmentation(self) -> float:
        """The share of the block that is lost at the peak: 0 for none."""
        return 1 - self.peak_bytes / self.n_bytes if self.n_bytes else 0.0


def place_online(lifetimes: Sequence[Lifetime], fit: Fit = Fit.FIRST) -> Placement:
    """Place tensors one by one as they are allocated, as an allocator does that can't move them.

    Args:
        lifetimes: In any order; allocated in the order of `first`, those of one operator as given.
        fit: How to choose among gaps; if none is large enough, the block grows.
    """
    order = sorted(range(len(lifetimes)), key=lambda index: lifetimes[index].first)
    offsets: dict[int, int] = {}
    for index in order:
        now = lifetimes[index].first
        alive = [other for other in offsets if lifetimes[other].end > now]
        offsets[index] = _offset(lifetimes, offsets, alive, lifetimes[index].n_bytes, fit)
    return _placement(lifetimes, offsets)


def place_offline(lifetimes: Sequence[Lifetime], *, n_tries: int = 200, seed: int = 0) -> Placement:
    """Look for the placement that loses nothing, knowing all lifetimes beforehand.

    Each tensor goes to the lowest place that is free during its whole life; the order in which they choose
    decides. Tried are: the largest first, the longest first, the earliest first, and random exchanges in the
    best of these, until nothing is lost or `n_tries` is over.

    Args:
        lifetimes: In any order.
        n_tries: Orders to try.
        seed: Of the exchanges.

    Source:
        Pisarchyk & Lee 2020, arXiv:2001.03288, greedy by size.
    """
    indices = range(len(lifetimes))
    starts = [
        sorted(indices, key=lambda i: (-lifetimes[i].n_bytes, lifetimes[i].first)),
        sorted(indices, key=lambda i: (lifetimes[i].first - lifetimes[i].end, -lifetimes[i].n_bytes)),
        sorted(indices, key=lambda i: (lifetimes[i].first, -lifetimes[i].n_bytes)),
    ]
    placements = [_place_in_order(lifetimes, order) for order in starts]
    best, order = min(zip(placements, starts, strict=True), key=lambda pair: pair[0].n_bytes)
    generator = random.Random(seed)
    for _ in range(n_tries - len(starts)):
        if best.n_bytes == best.peak_bytes:
            break
        changed = list(order)
        first, second = generator.randrange(len(changed)), generator.randrange(len(changed))
        changed.insert(second, changed.pop(first))
        placement = _place_in_order(lifetimes, changed)
        if placement.n_bytes <= best.n_bytes:
            best, order = placement, changed
    return best


def _place_in_order(lifetimes: Sequence[Lifetime], order: Iterable[int]) -> Placement:
    offsets: dict[int, int] = {}
    for index in order:
        life = lifetimes[index]
        meets = [o for o in offsets if lifetimes[o].first < life.end and life.first < lifetimes[o].end]
        offsets[index] = _offset(lifetimes, offsets, meets, life.n_bytes, Fit.FIRST)
    return _placement(lifetimes, offsets)


def _offset(
    lifetimes: Sequence[Lifetime], offsets: dict[int, int], neighbours: Iterable[int], n_bytes: int, fit: Fit
) -> int:
    """Return where `n_bytes` go among `neighbours`, which are placed: in a gap, or above them all."""
    gaps: list[tuple[int, int]] = []  # size, start
    top = 0
    for start, end in sorted((offsets[o], offsets[o] + lifetimes[o].n_bytes) for o in neighbours):
        if start - top >= n_bytes:
            gaps.append((start - top, top))
        top = max(top, end)
    if not gaps:
        return top
    return min(gaps)[1] if fit is Fit.BEST else gaps[0][1]


def _placement(lifetimes: Sequence[Lifetime], offsets: dict[int, int]) -> Placement:
    n_bytes = max((offsets[i] + lifetime.n_bytes for i, lifetime in enumerate(lifetimes)), default=0)
    # A sum grows only where something is allocated.
    moments = {lifetime.first for lifetime in lifetimes}
    peak = max((sum(o.n_bytes for o in lifetimes if o.first <= now < o.end) for now in moments), default=0)
    return Placement(tuple(offsets[i] for i in range(len(lifetimes))), n_bytes, peak)
