import random

import pytest

from latency.memory.lifetimes import Lifetime
from latency.memory.placement import Fit, place_offline, place_online


def lives(*rows):
    return tuple(Lifetime(index, *row) for index, row in enumerate(rows))


def assert_apart(lifetimes, placement):
    for a, one in enumerate(lifetimes):
        assert 0 <= placement.offsets[a] <= placement.n_bytes - one.n_bytes
        for b, other in enumerate(lifetimes[:a]):
            if one.first < other.end and other.first < one.end:
                low, high = sorted([(placement.offsets[a], one.n_bytes), (placement.offsets[b], other.n_bytes)])
                assert low[0] + low[1] <= high[0]


def test_a_gap_that_is_too_small_is_lost():
    # 4 bytes are freed below 4 that stay: 6 do not fit there.
    found = lives((4, 0, 2), (4, 1, 4), (6, 2, 4))
    online = place_online(found)
    assert (online.offsets, online.n_bytes, online.peak_bytes) == ((0, 4, 8), 14, 10)
    assert online.fragmentation == pytest.approx(4 / 14)
    planned = place_offline(found)
    assert (planned.n_bytes, planned.fragmentation) == (10, 0.0)


def test_best_fit_keeps_the_large_gap():
    # Gaps of 8 (lower) and 4 are left; 4 come first, then 8.
    found = lives((8, 0, 4), (1, 1, 9), (4, 2, 4), (1, 3, 9), (4, 4, 9), (8, 5, 9))
    assert place_online(found, Fit.FIRST).n_bytes == 22
    best = place_online(found, Fit.BEST)
    assert (best.offsets[4], best.offsets[5], best.n_bytes) == (9, 0, 14)


def test_nothing_to_place():
    for placement in (place_online(()), place_offline(())):
        assert (placement.offsets, placement.n_bytes, placement.fragmentation) == ((), 0, 0.0)


def test_random_lifetimes_never_overlap():
    generator = random.Random(0)
    for _ in range(20):
        rows = []
        for _ in range(25):
            first = generator.randrange(30)
            rows.append((generator.randint(1, 50), first, first + generator.randint(1, 8)))
        found = lives(*rows)
        planned = place_offline(found, n_tries=50)
        for placement in (place_online(found), place_online(found, Fit.BEST), planned):
            assert_apart(found, placement)
            assert placement.n_bytes >= placement.peak_bytes
        assert planned.n_bytes <= place_online(found).n_bytes


def test_a_plan_is_the_same_every_time():
    found = lives(*((size, size % 5, size % 5 + 3) for size in range(1, 20)))
    assert place_offline(found) == place_offline(found)
