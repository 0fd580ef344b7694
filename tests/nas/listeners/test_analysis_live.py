import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import nas
from nas.listeners.live import Throttle


class Clock:
    """A day in a millisecond."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_what_is_costly_takes_its_share_of_the_time_at_most():
    clock = Clock()
    throttle = Throttle(0.05, clock)
    drawn = []

    def draw():
        clock.now += 2.0
        drawn.append(clock.now)

    for _ in range(1000):
        clock.now += 1.0
        throttle.run(draw)
    assert 2.0 * len(drawn) <= 0.05 * clock.now + 2.0
    assert 2.0 * len(drawn) >= 0.04 * clock.now


def test_what_costs_nothing_always_runs():
    clock = Clock()
    throttle = Throttle(0.05, clock)
    assert all(throttle.run(lambda: None) for _ in range(10))


def test_it_says_whether_it_ran():
    clock = Clock()
    throttle = Throttle(0.1, clock)

    def draw():
        clock.now += 1.0

    assert throttle.run(draw)
    assert not throttle.run(draw)
    clock.now = 20.0
    assert throttle.run(draw)


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_tensorboard_is_told_what_the_store_holds(tiny_config, tmp_path):
    overrides = ["tensorboard=true", "controller.n_generations=2"]
    run = nas.run_search(tiny_config, tmp_path / "run", overrides=overrides)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    accuracy = sorted(event.value for event in events.Scalars("metrics/accuracy"))
    assert accuracy == pytest.approx(sorted(r.metrics["accuracy"] for r in run.records if r.is_complete))
    volumes = [event.value for event in events.Scalars("search/hypervolume")]
    assert volumes == pytest.approx([run.hypervolumes()[3], run.hypervolumes()[7]])
    assert [event.step for event in events.Scalars("search/front_size")] == [4, 8]
    assert all(event.value > 0 for event in events.Scalars("search/candidates_per_hour"))
    assert events.Tags()["images"] == ["front/accuracy over latency_ms"]
    confirmed = {event.step: event.value for event in events.Scalars("confirmed/latency_ms")}
    assert confirmed == {r.number: pytest.approx(r.metrics["latency_ms"], rel=1e-6) for r in run.front}
    best = max(record.metrics["accuracy"] for record in run.front)
    assert events.Scalars("best/accuracy")[0].value == pytest.approx(best, rel=1e-6)
    plugins = events.summary_metadata["_hparams_/session_start_info"]
    told = HParamsPluginData.FromString(plugins.plugin_data.content).session_start_info.hparams
    assert told["controller.kind"].string_value == "nsga2"
    assert told["training.epochs"].number_value == 1
