"""The order of a graph's operators whose peak of activations is smallest."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from latency.checks import require_positive
from latency.graph import OperatorGraph
from latency.memory.dependencies import Dependencies
from latency.memory.lifetimes import Release, lifetimes, timeline


@dataclass(frozen=True)
class OperatorOrder:
    """An order and what is known of its optimality; bytes are those of activations, freed after last use.

    Attributes:
        order: Indices in `OperatorGraph.operators`.
        peak_bytes: Of this order.
        lower_bound_bytes: No order has a smaller peak.
        n_states: Sets of finished operators that were looked at.
    """

    order: tuple[int, ...]
    peak_bytes: int
    lower_bound_bytes: int
    n_states: int

    @property
    def is_proved(self) -> bool:
        """Whether no order is better."""
        return self.peak_bytes == self.lower_bound_bytes


def order_peak(graph: OperatorGraph, order: tuple[int, ...] | None = None) -> int:
    """Return the peak of activations in bytes, freed after last use, of `order` or of the graph's own."""
    found = lifetimes(graph, release=Release.LAST_USE, order=order)
    return max(timeline(found, len(graph.operators)), default=0)


def best_order(graph: OperatorGraph, *, max_states: int = 20_000, beam_width: int = 64) -> OperatorOrder:
    """Return the operator order with the smallest peak of activations, or a good one and a bound.

    Dynamic programming over the graph's down-sets (sets of operators that contain what they depend on): the
    memory that is taken depends on the set alone, so of all ways to it only the one of smallest peak counts. Sets
    are visited in the order of that peak, so the first complete one is optimal. Where a chain of operators
    fits below the peak that is reached anyway and ends with no more memory than it found, running it at once
    costs nothing: the memory taken is a submodular function of the set. If `max_states` sets were not
    enough, a beam search gives the order, and the smallest peak still open the bound.

    Args:
        graph: Of an inference.
        max_states: Sets to visit before proving is given up.
        beam_width: Sets that the beam search keeps at each step.

    Raises:
        ValueError: If an option is not positive.

    Source:
        Ahn et al. 2020 (Serenity), arXiv:2003.02369.
        Differs: sets are visited best first in place of level by level under a guessed budget, and chains
        that cost nothing are run at once.
    """
    require_positive(max_states=max_states, beam_width=beam_width)
    search = _Search(Dependencies.of(graph))
    own = tuple(range(len(graph.operators)))
    own_peak = order_peak(graph)
    if own_peak == search.floor:
        return OperatorOrder(own, own_peak, own_peak, 0)
    exact = search.best_first(max_states)
    if exact.order is not None:
        return OperatorOrder(exact.order, exact.bound, exact.bound, exact.n_states)
    beam = search.beam(beam_width)
    order = min((own, beam), key=lambda order: order_peak(graph, order))
    return OperatorOrder(order, order_peak(graph, order), exact.bound, exact.n_states)


class _State(NamedTuple):
    """A set of finished operators and the best known way to it; sorts by what to visit first.

    Attributes:
        peak: The largest sum on the way, or the floor if that is more.
        n_missing: Operators still to run.
        taken: Bytes taken now.
        done: The set, a bit for each operator.
        ready: Those that can run next.
    """

    peak: int
    n_missing: int
    taken: int
    done: int
    ready: int


class _Outcome(NamedTuple):
    order: tuple[int, ...] | None
    bound: int
    n_states: int


class _Search:
    """Moves between sets of finished operators."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._graph = dependencies
        self._complete = (1 << dependencies.n_operators) - 1
        self.floor = dependencies.floor_bytes
        # From each set to the one it was reached from and the operators run in between.
        self._ways: dict[int, tuple[int, tuple[int, ...]]] = {}

    def best_first(self, max_states: int) -> _Outcome:
        start = self._start()
        waiting, peaks = [start], {start.done: start.peak}
        n_states = 0
        while waiting:
            state = heapq.heappop(waiting)
            if state.done == self._complete:
                return _Outcome(self._order(), state.peak, n_states)
            if state.peak > peaks[state.done]:
                continue
            if n_states == max_states:
                return _Outcome(None, state.peak, n_states)
            n_states += 1
            for following, run in self._successors(state):
                if following.peak < peaks.get(following.done, following.peak + 1):
                    peaks[following.done] = following.peak
                    self._ways[following.done] = (state.done, run)
                    heapq.heappush(waiting, following)
        raise AssertionError("a graph of operators has no cycle")

    def beam(self, width: int) -> tuple[int, ...]:
        start = self._start()
        beam, peaks = [start], {start.done: start.peak}
        while beam:
            found: dict[int, _State] = {}
            for state in beam:
                for following, run in self._successors(state):
                    if following.peak < peaks.get(following.done, following.peak + 1):
                        peaks[following.done] = following.peak
                        self._ways[following.done] = (state.done, run)
                        found[following.done] = following
            best = peaks.get(self._complete)
            unfinished = (s for s in found.values() if s.n_missing and (best is None or s.peak < best))
            beam = heapq.nsmallest(width, unfinished, key=lambda s: (s.peak, s.taken, s.n_missing))
        return self._order()

    def _start(self) -> _State:
        self._ways = {}
        empty = _State(self.floor, self._graph.n_operators, 0, 0, self._graph.roots)
        start, run = self._run_free_chains(empty)
        if run:
            self._ways[start.done] = (0, run)
        return start

    def _successors(self, state: _State) -> Iterator[tuple[_State, tuple[int, ...]]]:
        for operator in _bits(state.ready):
            following, run = self._run_free_chains(self._after(state, operator))
            yield following, (operator, *run)

    def _after(self, state: _State, operator: int) -> _State:
        graph = self._graph
        done = state.done | 1 << operator
        during = state.taken + graph.allocates[operator]
        freed = sum(n_bytes for n_bytes, users in graph.may_free[operator] if not users & ~done)
        ready = state.ready & ~(1 << operator)
        for successor in graph.successors[operator]:
            if not graph.predecessors[successor] & ~done:
                ready |= 1 << successor
        return _State(max(state.peak, during), state.n_missing - 1, during - freed, done, ready)

    def _run_free_chains(self, state: _State) -> tuple[_State, tuple[int, ...]]:
        """Run chains that neither raise the peak nor leave more memory taken, as long as there are any."""
        run: list[int] = []
        untried = state.ready
        while untried:
            operator = (untried & -untried).bit_length() - 1
            after, chain = self._free_chain(state, operator)
            if chain:
                # What frees memory now may not have done so before: all are tried again.
                state, untried = after, after.ready
                run += chain
            else:
                untried &= untried - 1
        return state, tuple(run)

    def _free_chain(self, state: _State, operator: int) -> tuple[_State, list[int]]:
        now, chain = state, []
        while True:
            chain.append(operator)
            after = self._after(now, operator)
            if after.peak > state.peak:
                return state, []
            if after.taken <= state.taken:
                return after, chain
            opened = after.ready & ~now.ready
            if not opened or opened & (opened - 1):  # the chain ends or forks
                return state, []
            now, operator = after, opened.bit_length() - 1

    def _order(self) -> tuple[int, ...]:
        parts: list[tuple[int, ...]] = []
        done = self._complete
        while done:
            done, run = self._ways[done]
            parts.append(run)
        return tuple(operator for run in reversed(parts) for operator in run)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1
