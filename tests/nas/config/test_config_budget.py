"""The keys `scheduling` and `budget` of a configuration."""

import re

import pytest

from nas.config import differences, load_config
from nas.errors import ConfigurationError
from nas.search.parts import Scheduling
from nas.values.budgets import Budget

GIVEN = {
    "name": "grid",
    "search_space": {"kind": "integers", "n_genes": 2, "n_values": 3},
    "metrics": {"gain": {"function": "math:floor"}},
    "objectives": [{"metric": "gain", "direction": "maximize"}],
    "controller": {"kind": "random"},
}


def load(**changes):
    return load_config(GIVEN | changes, trust_code=True)


def test_they_are_read_written_and_compared():
    config = load(scheduling="steady_state", budget={"hours": 2, "n_trained": 500})
    assert (config.scheduling, config.budget) == (Scheduling.STEADY_STATE, Budget(hours=2.0, n_trained=500))
    assert load_config(config.to_mapping(), trust_code=True) == config
    assert [d.key for d in differences(load(), config)] == ["scheduling", "budget.hours", "budget.n_trained"]


def test_by_default_a_search_goes_by_generations_and_has_no_budget():
    assert (load().scheduling, load().budget) == (Scheduling.GENERATIONAL, Budget())
    assert load(budget=None).budget == Budget()


@pytest.mark.parametrize(
    "execution",
    [
        {"kind": "process_pool", "n_workers": "auto", "candidate_timeout_s": 60},
        {"kind": "ray", "address": "auto", "resources_per_candidate": {"gpu": 0.25}},
    ],
)
def test_options_of_execution_are_read_and_written(execution):
    config = load(execution=execution)
    assert {name: config.execution.options[name] for name in execution if name != "kind"} == {
        name: value for name, value in execution.items() if name != "kind"
    }
    assert load_config(config.to_mapping(), trust_code=True) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": {"hour": 2}}, "budget: unknown key 'hour'. Did you mean 'hours'?"),
        ({"budget": {"hours": 0}}, "budget.hours must be a positive finite number, got 0."),
        ({"budget": {"n_trained": 1.5}}, "budget.n_trained must be a positive integer, got 1.5."),
        ({"budget": 2}, "budget must be a mapping, got 2."),
        (
            {"execution": {"kind": "process_pool", "n_workers": "many"}},
            "execution.n_workers must be an integer of at least 1 or 'auto', got 'many'.",
        ),
        (
            {"execution": {"kind": "ray", "resources_per_candidate": {"cpu": 0}}},
            "resources_per_candidate must be amounts",
        ),
        (
            {"training": {"device": "cuda"}, "execution": {"kind": "ray"}},
            "execution.resources_per_candidate must hold a share of a gpu, such as {gpu: 0.25}, where training.device",
        ),
        ({"scheduling": "steady"}, "scheduling must be one of 'generational', 'steady_state', got 'steady'."),
    ],
)
def test_faults(changes, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load(**changes)
