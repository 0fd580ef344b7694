"""A run that starts from what earlier runs on the same space found."""

import shutil

import numpy as np
import pytest

import nas
from nas.analysis import to_json
from nas.config import load_config
from nas.errors import ConfigurationError, InputError, RunFolderError
from nas.search.warm_start import _spread_out


def gain(subject):
    return float(subject.genotype.genes[0] * 2 + subject.genotype.genes[1] % 3)


def price(subject):
    return float(sum(subject.genotype.genes))


def other_price(subject):
    return float(sum(subject.genotype.genes) + subject.genotype.genes[2] * 5)


def config(price="price", **controller):
    return {
        "name": "grid",
        "search_space": {"kind": "integers", "n_genes": 4, "n_values": 6},
        "metrics": {name: {"function": f"{__name__}:{name}"} for name in ("gain", price)},
        "objectives": [{"metric": "gain", "direction": "maximize"}, {"metric": price, "direction": "minimize"}],
        "controller": {"kind": "nsga2", "population_size": 12, "n_generations": 4, **controller},
        "tensorboard": False,
    }


def run_of(settings, path, **options):
    return nas.run_search(settings, path, trust_code=True, **options)


@pytest.fixture
def earlier(tmp_path):
    return run_of(config(), tmp_path / "earlier")


def test_the_best_of_an_earlier_run_is_asked_for_first(earlier, tmp_path):
    run = run_of(config(price="other_price", warm_start=[str(earlier.path)]), tmp_path / "later")
    first = {record.candidate.genotype for record in run.records[:12]}
    front = {record.candidate.genotype for record in earlier.front}
    assert front <= first if len(front) <= 12 else first <= front
    assert first <= {record.candidate.genotype for record in earlier.records}


def test_several_runs_give_equal_shares(earlier, tmp_path):
    second = run_of(config() | {"seed": 7}, tmp_path / "second")
    both = [str(earlier.path), str(second.path)]
    later = config() | {"controller": {"kind": "random", "batch_size": 4, "n_candidates": 12, "warm_start": both}}
    first = {record.candidate.genotype for record in run_of(later, tmp_path / "later").records[:10]}
    for run in (earlier, second):
        assert len(first & {record.candidate.genotype for record in run.records}) >= 5
        assert run.front[0].candidate.genotype in first


def test_a_resumed_run_needs_the_earlier_one_no_more(earlier, tmp_path):
    settings = config(warm_start=[str(earlier.path)])
    whole = run_of(settings, tmp_path / "whole")
    half = config(warm_start=[str(earlier.path)], n_generations=2)
    run_of(half, tmp_path / "resumed")
    shutil.rmtree(earlier.path)
    resumed = run_of(settings, tmp_path / "resumed", resume=True)
    assert to_json(resumed, all_records=True) == to_json(whole, all_records=True)


def test_what_cannot_be_started_from_is_refused(earlier, tmp_path):
    with pytest.raises(RunFolderError, match="nowhere"):
        run_of(config(warm_start=[str(tmp_path / "nowhere")]), tmp_path / "a")
    wider = config(warm_start=[str(earlier.path)])
    wider["search_space"]["n_values"] = 7
    with pytest.raises(InputError, match=r"controller\.warm_start: .*earlier searched another space than this run's"):
        run_of(wider, tmp_path / "b")
    with pytest.raises(ConfigurationError, match=r"controller\.warm_start must be a list"):
        load_config(config(warm_start="runs/earlier"), trust_code=True)


def test_the_configuration_is_written_and_read_again(earlier, tmp_path):
    settings = load_config(config(warm_start=["runs/a", "runs/b"]), trust_code=True)
    assert load_config(settings.to_mapping(), trust_code=True) == settings
    assert [str(path) for path in settings.controller.warm_start] == ["runs/a", "runs/b"]


def test_a_front_is_spread_out_from_its_first_objectives_end():
    losses = np.array([[3.0, 1.0], [0.0, 4.0], [2.0, 2.0], [1.9, 2.1]])
    assert _spread_out(losses) == [1, 0, 3, 2]
    assert _spread_out(np.ones((3, 2))) == [0, 1, 2]
