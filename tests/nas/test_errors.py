"""An error about data is short, whatever the data."""

import pickle

from nas.errors import DataError, DataFault


def test_a_few_faults_are_told_one_by_one_and_many_together():
    faults = [DataFault(f"m{index}.png", "holds 11", "masks hold 11", "write so") for index in range(80)]
    faults += [DataFault(f"i{index}.png", "is broken") for index in range(3)]
    faults += [DataFault("", "no root")]
    assert str(DataError(faults)).splitlines() == [
        "80 masks hold 11 (first: m0.png); write so",
        "i0.png: is broken",
        "i1.png: is broken",
        "i2.png: is broken",
        "no root",
    ]
    assert str(DataError(faults[80:83] * 2)) == "i0.png and 5 more: is broken"


def test_a_message_has_at_most_20_lines_of_bounded_length():
    faults = [DataFault(f"{index}", f"is of kind {index}" + "x" * 5000) for index in range(1000)]
    lines = str(DataError(faults)).splitlines()
    assert len(lines) == 20
    assert lines[-1] == "... and faults of 981 more kinds."
    assert max(map(len, lines)) < 700


def test_it_passes_between_processes():
    error = DataError([DataFault("a.png", "is broken", "files are broken", "mend it"), "and more"])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(copy), copy.details, copy.faults) == (str(error), error.details, ("a.png: is broken", "and more"))
