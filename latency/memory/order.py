"""The order of a graph's operators whose peak of activations is smallest."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from latency.checks import require_positive
from latency.graph import OperatorGraph
from latency.memory.dependencies import Dependencies, members
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


def best_order(graph: OperatorGraph, *, max_states: int = 2_000, beam_width: int = 32) -> OperatorOrder:
    """Return the operator order with the smallest peak of activations, or a good one and a bound.

    Dynamic programming over the graph's down-sets (sets of operators that contain what they depend on): the
    memory that is taken depends on the set alone, so each is visited once. The question is whether an order stays
    within a budget: first the least that any order needs, then just less than the best order known, until there
    is none. A chain of operators that fits into the budget and ends with no more memory than it found is run at
    once: the memory taken is a submodular function of the set, so nothing is lost. Where `max_states` sets do not
    answer, a beam search under ever smaller budgets gives the order, and the last budget that was refused the bound.

    Args:
        graph: Of an inference.
        max_states: Sets to visit for one budget before proving is given up.
        beam_width: Sets that the beam search keeps at each step.

    Raises:
        ValueError: If an option is not positive.

    Source:
        Ahn et al. 2020 (Serenity), arXiv:2003.02369.
        Differs: sets that take least are visited first, not level by level; free chains are run at once.
    """
    require_positive(max_states=max_states, beam_width=beam_width)
    search = _Search(Dependencies.of(graph))
    best = tuple(range(len(graph.operators)))
    peak, bound, budget, n_states = order_peak(graph), search.floor, search.floor, 0
    while bound < peak:
        answer = search.within(budget, max_states)
        n_states += answer.n_states
        if answer.order is not None:
            best, peak = answer.order, order_peak(graph, answer.order)
        elif answer.next_budget is not None:
            bound = answer.next_budget
        else:
            while (order := search.beam(peak - 1, beam_width)) is not None:
                best, peak = order, order_peak(graph, order)
            break
        budget = peak - 1
    return OperatorOrder(best, peak, bound, n_states)


class _State(NamedTuple):
    """A set of finished operators; sorts by what to visit first.

    Attributes:
        taken: Bytes taken now.
        n_missing: Operators still to run.
        done: The set, a bit for each operator.
        ready: Those that can run next, helpers apart.
    """

    taken: int
    n_missing: int
    done: int
    ready: int


class _Move(NamedTuple):
    """One or more operators that run from a state on.

    Attributes:
        peak: The most bytes taken during them.
        state: Where they lead.
        run: The operators.
    """

    peak: int
    state: _State
    run: tuple[int, ...]


class _Answer(NamedTuple):
    """Whether an order stays within a budget.

    Attributes:
        order: One that does; `None` if there is none or none was found.
        next_budget: If there is none: the smallest budget that might do. `None` if it is not known.
        n_states: Sets that were visited.
    """

    order: tuple[int, ...] | None
    next_budget: int | None
    n_states: int


class _Search:
    """Moves between sets of finished operators.

    Attributes:
        floor: What any order needs, in bytes.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self.floor = dependencies.floor_bytes
        self._graph = dependencies
        self._complete = (1 << dependencies.n_operators) - 1
        self._helpers = tuple(map(dependencies.needed_helpers, range(dependencies.n_operators)))
        # What an operator waits for, and who waits for it, when helpers run on demand.
        self._before = [self._awaited(operator) for operator in range(dependencies.n_operators)]
        self._after: list[list[int]] = [[] for _ in self._before]
        for operator in self._others(self._complete):
            for before in members(self._before[operator]):
                self._after[before].append(operator)
        # From each set to the one it was reached from and the operators run in between.
        self._ways: dict[int, tuple[int, tuple[int, ...]]] = {}

    def within(self, budget: int, max_states: int) -> _Answer:
        """Look for an order whose peak is at most `budget`; visit at most `max_states` sets."""
        start = self._start(budget)
        waiting, refused, n_states = [start], [], 0
        while waiting:
            state = heapq.heappop(waiting)
            if state.done == self._complete:
                return _Answer(self._order(), None, n_states)
            if n_states == max_states:
                return _Answer(None, None, n_states)
            n_states += 1
            for move in self._moves(state, budget):
                if move.peak > budget:
                    refused.append(move.peak)
                elif move.state.done not in self._ways:
                    self._ways[move.state.done] = (state.done, move.run)
                    heapq.heappush(waiting, move.state)
        # A budget below all that was refused would have led to the same sets.
        return _Answer(None, min(refused), n_states)

    def beam(self, budget: int, width: int) -> tuple[int, ...] | None:
        """Return an order whose peak is at most `budget`, or `None` if following `width` sets at a time finds none."""
        beam = [self._start(budget)]
        while beam:
            if any(state.done == self._complete for state in beam):
                return self._order()
            found: list[_State] = []
            for state in beam:
                for move in self._moves(state, budget):
                    if move.peak <= budget and move.state.done not in self._ways:
                        self._ways[move.state.done] = (state.done, move.run)
                        found.append(move.state)
            beam = [s for s in found if s.done == self._complete] or heapq.nsmallest(width, found)
        return None

    def _start(self, budget: int) -> _State:
        roots = sum(1 << operator for operator in self._others(self._complete) if not self._before[operator])
        state, run = self._run_free_chains(_State(0, self._graph.n_operators, 0, roots), budget)
        self._ways = {state.done: (0, run)}
        return state

    def _moves(self, state: _State, budget: int) -> Iterator[_Move]:
        """Yield what can run next: each ready operator, and all chains that are free after it."""
        for operator in members(state.ready):
            move = self._run(state, operator)
            if move.peak <= budget:
                following, more = self._run_free_chains(move.state, budget)
                move = _Move(move.peak, following, move.run + more)
            yield move

    def _run(self, state: _State, operator: int) -> _Move:
        graph = self._graph
        run = (*(helper for helper in self._helpers[operator] if not state.done >> helper & 1), operator)
        done, peak = state.done, state.taken
        for each in run:
            done |= 1 << each
            peak += graph.allocates[each]
        freed = sum(n_bytes for n_bytes, users in graph.may_free[operator] if not users & ~done)
        ready = state.ready & ~(1 << operator)
        for successor in self._after[operator]:
            if not self._before[successor] & ~done:
                ready |= 1 << successor
        return _Move(peak, _State(peak - freed, state.n_missing - len(run), done, ready), run)

    def _run_free_chains(self, state: _State, budget: int) -> tuple[_State, tuple[int, ...]]:
        """Run chains that stay within the budget and leave no more memory taken, as long as there are any."""
        run: tuple[int, ...] = ()
        untried = state.ready
        while untried:
            operator = (untried & -untried).bit_length() - 1
            chain = self._free_chain(state, operator, budget)
            if chain is None:
                untried &= untried - 1
            else:
                # What frees memory now may not have done so before: all are tried again.
                state, untried, run = chain.state, chain.state.ready, run + chain.run
        return state, run

    def _free_chain(self, state: _State, operator: int, budget: int) -> _Move | None:
        now = state
        run: tuple[int, ...] = ()
        while True:
            move = self._run(now, operator)
            run += move.run
            if move.peak > budget:
                return None
            if move.state.taken <= state.taken:
                return _Move(move.peak, move.state, run)
            opened = move.state.ready & ~now.ready
            if not opened or opened & (opened - 1):  # the chain ends or forks
                return None
            now, operator = move.state, opened.bit_length() - 1

    def _order(self) -> tuple[int, ...]:
        parts: list[tuple[int, ...]] = []
        done = self._complete
        while done:
            done, run = self._ways[done]
            parts.append(run)
        return tuple(operator for run in reversed(parts) for operator in run)

    def _awaited(self, operator: int) -> int:
        before = self._graph.predecessors[operator]
        for helper in self._helpers[operator]:
            before |= self._graph.predecessors[helper]
        return before & ~self._graph.helpers

    def _others(self, operators: int) -> Iterator[int]:
        return members(operators & ~self._graph.helpers)
