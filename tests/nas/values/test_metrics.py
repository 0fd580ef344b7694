import pytest

from nas.tasks import TASKS
from nas.values.metrics import METRICS, MetricSource, metric_info, metric_key, split_key
from nas.values.objectives import Direction


@pytest.mark.parametrize("kind", TASKS)
def test_every_metric_of_a_task_is_known(kind: str) -> None:
    task = TASKS[kind](("background", "skin"))
    for metric in task.metrics:
        info = metric_info(metric)
        assert info is not None
        assert (info.source, info.direction) == (MetricSource.TASK, Direction.MAXIMIZE)
        assert info.needs_training
    assert dict(task.scores) == {name: METRICS[name] for name in task.metrics if split_key(name)[1] is None}


def test_costs_are_minimised() -> None:
    for name in ("n_params", "n_macs", "latency_ms", "peak_memory_bytes", "latency_ms[phone]"):
        info = metric_info(name)
        assert info is not None
        assert info.direction is Direction.MINIMIZE
        assert not info.needs_training


@pytest.mark.parametrize("key", ["latency", "n_params[cpu]", "mean_iou[skin]", "iou", "dice[skin]", "iou[]"])
def test_unknown_metrics(key: str) -> None:
    assert metric_info(key) is None


def test_keys() -> None:
    assert split_key("iou[left eye]") == ("iou", "left eye")
    assert split_key("n_params") == ("n_params", None)
    assert metric_key("n_params", None, []) == "n_params"
    assert metric_key("latency_ms", "cpu", ["cpu"]) == "latency_ms"
    assert metric_key("latency_ms", "cpu", ["cpu", "phone"]) == "latency_ms[cpu]"
