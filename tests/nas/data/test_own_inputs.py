"""Each of the inputs that people bring ends in the right value, or in one error that helps."""

import pytest

from nas.data import Split
from nas.errors import DataError
from tests.nas.data.own_inputs import INPUTS


def test_they_are_fifty_or_more():
    assert len(INPUTS) >= 50


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_read_right_or_refused_with_words_that_help(name, tmp_path):
    given = INPUTS[name]
    root = tmp_path / "data"
    root.mkdir()
    given.make(root)
    dataset = given.dataset(root)
    if given.holds is not None:
        dataset.check()
        notes = dataset.notes()
        for words in given.told:
            assert any(words in note for note in notes), notes
        assert len(dataset.fingerprint()) == 64
        given.holds(dataset)
        return
    for read in (dataset.check, dataset.fingerprint, lambda: dataset.load(Split.TRAIN)):
        try:
            read()
        except DataError as error:
            message = str(error)
            assert len(message.splitlines()) <= 20
            assert message.isprintable() or "\n" in message
            if read == dataset.check:
                assert all(words in message for words in given.told), message
        else:
            assert read == dataset.fingerprint, "read, though it is refused"
