"""What shows a search never ends it."""

import errno
import os

import pytest

import nas
from nas.analysis import front_table, summary_lines, to_json
from nas.listeners.live import PlotListener, TensorBoardListener
from nas.search.listener import ListenerGroup, SearchListener
from nas.values.records import RecordState


class Failing(SearchListener):
    def __init__(self, error):
        self.error = error

    def on_message(self, text):
        raise self.error


class Hearing(SearchListener):
    def __init__(self):
        self.heard = []

    def on_message(self, text):
        self.heard.append(text)


def test_a_listener_that_fails_is_told_of_once_and_the_others_hear_all(caplog):
    hearing = Hearing()
    group = ListenerGroup([Failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), hearing])
    for text in ("one", "two"):
        group.on_message(text)
    assert hearing.heard == ["one", "two"]
    (said,) = caplog.messages
    assert "Failing failed, and the search goes on without what it shows: OSError: [Errno 28] No space left" in said


def test_what_is_no_error_still_stops(caplog):
    with pytest.raises(KeyboardInterrupt):
        ListenerGroup([Failing(KeyboardInterrupt())]).on_message("one")


def huge(subject):
    return (1 if sum(subject.genotype.genes) % 2 else -1) * 1e308 * (1 - subject.genotype.genes[0] * 1e-3)


def gain(subject):
    return float(subject.genotype.genes[0] * 2 + subject.genotype.genes[1] % 3)


def price(subject):
    return float(sum(subject.genotype.genes))


def searched(path, **changes):
    configuration = {
        "name": "grid",
        "search_space": {"kind": "integers", "n_genes": 3, "n_values": 6},
        "metrics": {name: {"function": f"{__name__}:{name}"} for name in ("gain", "price")},
        "objectives": [{"metric": "gain", "direction": "maximize"}, {"metric": "price", "direction": "minimize"}],
        "controller": {"kind": "nsga2", "population_size": 8, "n_generations": 3},
        "execution": {"kind": "serial", "isolated": False},
        **changes,
    }
    return nas.run_search(configuration, path, trust_code=True)


@pytest.mark.filterwarnings("default")  # numpy's and matplotlib's, of numbers that overflow
def test_values_at_the_edge_of_what_a_float_holds_end_no_search(tmp_path):
    metrics = {"gain": {"function": f"{__name__}:huge"}, "price": {"function": f"{__name__}:price"}}
    run = searched(tmp_path / "run", metrics=metrics)
    assert [record.state for record in run.records] == [RecordState.COMPLETE] * 24
    assert run.finished_size == 24
    front_table(run)
    assert list(summary_lines(run))
    assert to_json(run, all_records=True)


def without_room(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def without_descriptors(*arguments, **options):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("fail", [without_room, without_descriptors])
@pytest.mark.parametrize("method", ["on_start", "on_record", "on_batch", "on_end"])
def test_plots_and_tensorboard_that_cannot_be_written_end_no_search(tmp_path, monkeypatch, caplog, fail, method):
    for kind in (PlotListener, TensorBoardListener):
        if method in vars(kind):
            monkeypatch.setattr(kind, method, fail)
    run = searched(tmp_path / "run")
    assert run.finished_size == len(run.records) == 24
    failed = {message.split(" failed")[0] for message in caplog.messages}
    assert "TensorBoardListener" in failed
    assert "PlotListener" in failed or method in ("on_start", "on_record")
