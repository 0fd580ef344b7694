"""The order of a graph's operators whose peak of activations is smallest."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from latency.graph.operator_graph import OperatorGraph
from latency.memory.dependencies import Dependencies, members
from latency.memory.lifetimes import Release, lifetimes, timeline
from latency.sizes import require_positive

_BOUND_PRECISION = 8  # a bound that cannot reach the peak is sought to this part of it


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


def best_order(graph: OperatorGraph, *, max_states: int = 3_000, beam_width: int = 32) -> OperatorOrder:
    """Return the operator order with the smallest peak of activations, or a good one and a bound.

    A beam search gives an order; dynamic programming then asks whether one stays within a smaller budget, until none
    does. It goes over the graph's down-sets
    (sets of operators that contain what they depend on): the memory that is taken depends on the set alone, so each
    is visited once. Two rules make the sets few and lose no order that is best:

    - What runs next is a *block*: all that is missing until some piece of memory can be freed. An operator that frees
      nothing only takes memory, so it may wait until right before the first that needs its result, or that frees
      what it reads; between two moments at which memory becomes free therefore lies one block. Of two blocks of
      which one contains the other, the smaller may always go first.
    - A block that fits into the budget and ends with no more memory than it found is run at once: the memory
      taken is a submodular function of the set.

    Where `max_states` sets do not answer, smaller budgets give the bound: the gap between what is refused and what is
    not known is halved until it is an eighth of the peak.

    Args:
        graph: Of an inference.
        max_states: Sets to visit for one budget before proving is given up.
        beam_width: Sets that the beam search keeps at each step.

    Raises:
        ValueError: If an option is not positive.

    Source:
        Ahn et al. 2020 (Serenity), arXiv:2003.02369.
        Differs: blocks and not single operators; sets that take least are visited first, not level by level.
    """
    require_positive(max_states=max_states, beam_width=beam_width)
    search = _Search(Dependencies.of(graph))
    order = tuple(range(len(graph.operators)))
    peak, bound, n_states = order_peak(graph), search.floor, 0
    while bound < peak and (better := search.beam(peak - 1, beam_width)) is not None:
        order, peak = better, order_peak(graph, better)
    unknown = peak  # no budget from here on is worth a question
    while bound < unknown and (unknown == peak or unknown - bound > peak // _BOUND_PRECISION):
        # The beam's order is often the best: refusing anything below it proves that at once.
        budget = peak - 1 if unknown == peak else (bound + unknown) // 2
        answer = search.within(budget, max_states)
        n_states += answer.n_states
        if answer.order is not None:
            order, peak = answer.order, order_peak(graph, answer.order)
            unknown = peak
        elif answer.next_budget is not None:
            bound = answer.next_budget
        else:
            unknown = budget
    return OperatorOrder(order, peak, bound, n_states)


class _State(NamedTuple):
    """A set of finished operators; sorts by what to visit first.

    Attributes:
        taken: Bytes taken now.
        n_missing: Operators still to run.
        done: The set, a bit for each operator.
    """

    taken: int
    n_missing: int
    done: int


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
        # What must have run for one piece of memory to be free, and at last for the outputs to be there.
        self._goals = tuple({*map(dependencies.closure, dependencies.users), self._complete})
        # From each set to the one it was reached from and the blocks in between.
        self._ways: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._known_blocks: dict[int, list[int]] = {}

    def within(self, budget: int, max_states: int) -> _Answer:
        """Look for an order whose peak is at most `budget`; visit at most `max_states` sets."""
        refused: list[int] = []
        waiting, n_states = [self._start()], 0
        while waiting:
            state = heapq.heappop(waiting)
            if state.done == self._complete:
                return _Answer(self._order(), None, n_states)
            if n_states == max_states:
                return _Answer(None, None, n_states)
            n_states += 1
            for following in self._leave(state, budget, refused):
                heapq.heappush(waiting, following)
        # A budget below all that was refused would have led to the same sets.
        return _Answer(None, min(refused), n_states)

    def beam(self, budget: int, width: int) -> tuple[int, ...] | None:
        """Return an order whose peak is at most `budget`, or `None` if following `width` sets at a time finds none."""
        beam = [self._start()]
        while beam:
            found = [following for state in beam for following in self._leave(state, budget, [])]
            if self._complete in self._ways:
                return self._order()
            beam = heapq.nsmallest(width, found)
        return None

    def _start(self) -> _State:
        self._ways = {}
        return _State(0, self._graph.n_operators, 0)

    def _leave(self, state: _State, budget: int, refused: list[int]) -> Iterator[_State]:
        """Yield the unseen sets to which the next block leads, and add to `refused` the peaks of those beyond `budget`.

        First all chains of blocks run that are free.
        """
        while (chain := self._free_chain(state, budget)) is not None:
            blocks, following = chain
            if following.done in self._ways:
                return
            self._ways[following.done] = (state.done, blocks)
            if following.done == self._complete:
                yield following
                return
            state = following
        for block in self._blocks(state.done):
            peak, following = self._run(state, block)
            if peak > budget:
                refused.append(peak)
            elif following.done not in self._ways:
                self._ways[following.done] = (state.done, (block,))
                yield following

    def _free_chain(self, state: _State, budget: int) -> tuple[tuple[int, ...], _State] | None:
        """Return blocks that stay within the budget and leave no more memory taken, and where they lead.

        Each needs the one before it and none that is left out: until the last has run, nothing in between takes less.
        """
        chains: list[tuple[_State, tuple[int, ...], list[int]]] = [(state, (), [])]
        while chains:
            now, blocks, left_out = chains.pop()
            run = now.done & ~state.done
            opened = [b for b in self._blocks(now.done) if all(other & ~(b | run) for other in left_out)]
            for block in opened:
                peak, following = self._run(now, block)
                if peak > budget:
                    continue
                if following.taken <= state.taken:
                    return (*blocks, block), following
                chains.append((following, (*blocks, block), [*left_out, *(b for b in opened if b != block)]))
        return None

    def _blocks(self, done: int) -> list[int]:
        """Return the sets of operators that are missing for something to be freed, none containing another."""
        if (known := self._known_blocks.get(done)) is not None:
            return known
        found: list[int] = []
        for block in sorted({goal & ~done for goal in self._goals} - {0}, key=int.bit_count):
            for smaller in found:
                if not smaller & ~block:
                    break
            else:
                found.append(block)
        self._known_blocks[done] = found
        return found

    def _run(self, state: _State, block: int) -> tuple[int, _State]:
        """Return the most bytes taken while `block` runs, and where it leads: nothing is freed before its end."""
        graph = self._graph
        done = state.done | block
        peak, touched = state.taken, 0
        for operator in members(block):
            peak += graph.allocates[operator]
            touched |= graph.uses[operator]
        freed = sum(graph.n_bytes[piece] for piece in members(touched) if not graph.users[piece] & ~done)
        return peak, _State(peak - freed, state.n_missing - block.bit_count(), done)

    def _order(self) -> tuple[int, ...]:
        parts: list[tuple[int, ...]] = []
        done = self._complete
        while done:
            done, blocks = self._ways[done]
            parts.append(blocks)
        return tuple(operator for blocks in reversed(parts) for block in blocks for operator in members(block))
