"""Bytes as strangers send them: damaged copies of valid files, and any others."""

import random
import resource
import time
from pathlib import Path

from hypothesis import strategies as st

from latency.errors import LatencyError
from nas.errors import NasError
from search_spaces.errors import SearchSpaceError

OUR_ERRORS = (NasError, SearchSpaceError, LatencyError)
MAX_CPU_S = 10
MAX_KIB = 2 << 20

_HUGE = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x00" * 4)


def _flip(content, rng):
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(content, rng):
    content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _truncate(content, rng):
    del content[rng.randrange(len(content)) :]


def _cut(content, rng):
    start = rng.randrange(len(content))
    del content[start : start + rng.randrange(1, 64)]


def _repeat(content, rng):
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.randrange(1, 64)] * rng.randrange(1, 4)


def _insert(content, rng):
    start = rng.randrange(len(content))
    content[start:start] = rng.randbytes(rng.randrange(1, 9))


def _number(content, rng):
    number = rng.choice(_HUGE)
    start = rng.randrange(len(content))
    content[start : start + len(number)] = number


_CHANGES = (_flip, _flip, _flip, _overwrite, _overwrite, _truncate, _cut, _repeat, _insert, _number)


def damaged(content, seed, n_changes):
    """Return `content` after some changes, which `seed` determines."""
    rng, changed = random.Random(seed), bytearray(content)
    for _ in range(n_changes):
        if changed:
            rng.choice(_CHANGES)(changed, rng)
    return bytes(changed)


def foreign_bytes(valid):
    """Return a strategy of damaged copies of `valid` files, and of any bytes."""
    copies = st.builds(damaged, st.sampled_from(valid), st.integers(0, 2**32), st.integers(1, 8))
    return st.one_of(copies, copies, copies, st.binary(max_size=200))


def foreign_texts(words, valid=("",)):
    """Return a strategy of texts put together from `words`, damaged copies of `valid` ones, and any others."""
    sentences = st.lists(st.sampled_from(words), max_size=40).map("".join)
    copies = foreign_bytes([text.encode() for text in valid]).map(lambda content: content.decode(errors="replace"))
    return st.one_of(sentences, copies, st.text(max_size=60))


def bounded(read, source):
    """Read; what comes must come in time, in little memory, and be a value or one of our errors, which is returned."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raised = None
    try:
        read(source)
    except OUR_ERRORS as error:
        raised = error
        assert str(error).strip()
        assert len(str(error)) < 1_000_000
    except FileNotFoundError:
        assert not Path(source).exists()
    assert time.process_time() - start < MAX_CPU_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_KIB
    return raised
