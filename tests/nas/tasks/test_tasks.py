import math

import numpy as np
import pytest
import torch

from nas.errors import EvaluationError
from nas.tasks import TASKS, Classification, Segmentation

NAMES = ("background", "a", "b", "c")


def logits_of(predicted: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return logits `(B, n_classes, ...)` whose largest is at `predicted` `(B, ...)`."""
    return torch.nn.functional.one_hot(predicted.long(), n_classes).movedim(-1, 1).float()


def score(task, predicted, target) -> dict[str, float]:
    scorer = task.new_scorer()
    scorer.update(logits_of(torch.as_tensor(predicted), 4), torch.as_tensor(target))
    return scorer.compute()


def slow_scores(predicted: list[int], target: list[int], ignored: int | None, counted: set[int]) -> dict[str, float]:
    """Count pixel by pixel and class by class, as the definitions say."""
    pairs = [(p, t) for p, t in zip(predicted, target, strict=True) if t != ignored]
    iou, f1, recall, n_targets = {}, {}, {}, {}
    for index in range(len(NAMES)):
        tp = sum(1 for p, t in pairs if p == index and t == index)
        fp = sum(1 for p, t in pairs if p == index and t != index)
        fn = sum(1 for p, t in pairs if p != index and t == index)
        if tp + fp + fn:
            iou[index], f1[index] = tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn)
        if tp + fn:
            recall[index], n_targets[index] = tp / (tp + fn), tp + fn

    def mean(values: dict[int, float]) -> float:
        kept = [value for index, value in values.items() if index in counted]
        return sum(kept) / len(kept)

    total = sum(n for index, n in n_targets.items() if index in counted)
    weighted = sum(iou[index] * n / total for index, n in n_targets.items() if index in counted)
    return {
        "mean_iou": mean(iou),
        "mean_f1": mean(f1),
        "mean_accuracy": mean(recall),
        "frequency_weighted_iou": weighted,
        "geometric_mean_score": (mean(iou) * mean(recall) * weighted) ** (1 / 3),
        **{f"iou[{NAMES[index]}]": value for index, value in iou.items()},
        **{f"f1[{NAMES[index]}]": value for index, value in f1.items()},
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ignored", [None, 255])
@pytest.mark.parametrize("include_background", [True, False])
def test_segmentation_equals_counting_by_hand(seed, ignored, include_background):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3 + seed % 2, (3, 5, 7)).astype(np.uint8)
    predicted = np.where(rng.random(target.shape) < 0.5, target, rng.integers(0, 3, target.shape))
    if ignored is not None:
        target[rng.random(target.shape) < 0.2] = ignored
    task = Segmentation(NAMES, ignored, include_background=include_background)
    scorer = task.new_scorer()
    for index in range(3):  # in three batches
        logits = logits_of(torch.from_numpy(predicted[index : index + 1]), 4)
        scorer.update(logits, torch.from_numpy(target[index : index + 1]))
    counted = set(range(4)) if include_background else {1, 2, 3}
    expected = slow_scores(predicted.ravel().tolist(), target.ravel().tolist(), ignored, counted)
    assert scorer.compute() == pytest.approx(expected, abs=1e-12)
    assert scorer.compute().keys() <= set(task.metrics)


def test_a_perfect_prediction_scores_one_everywhere():
    target = torch.arange(4).reshape(1, 2, 2)
    task = Segmentation(NAMES)
    assert score(task, target, target) == dict.fromkeys(task.metrics, 1.0)


def test_a_prediction_that_is_wrong_everywhere_scores_zero():
    target = torch.arange(4).reshape(1, 2, 2)
    task = Segmentation(NAMES)
    assert score(task, (target + 1) % 4, target) == dict.fromkeys(task.metrics, 0.0)


def test_a_class_that_occurs_nowhere_is_left_out():
    scores = score(Segmentation(NAMES), [[[0, 1]]], [[[0, 1]]])
    assert scores["mean_iou"] == 1.0
    assert "iou[b]" not in scores
    assert "f1[c]" not in scores


def test_a_class_that_is_only_predicted_counts_as_zero_iou():
    scores = score(Segmentation(NAMES), [[[0, 0, 0, 2]]], [[[0, 0, 0, 0]]])
    assert scores["iou[b]"] == 0.0
    assert scores["mean_iou"] == 0.375
    assert scores["mean_accuracy"] == 0.75


def test_a_mean_over_no_class_is_left_out():
    scores = score(Segmentation(NAMES, include_background=False), [[[0, 0]]], [[[0, 0]]])
    assert scores == {"iou[background]": 1.0, "f1[background]": 1.0}


def test_ignored_pixels_do_not_count():
    scores = score(Segmentation(NAMES, 9), [[[0, 1, 2, 3]]], [[[0, 1, 9, 9]]])
    assert scores["mean_iou"] == 1.0
    assert "iou[b]" not in scores


@pytest.mark.parametrize("kind", TASKS)
def test_nothing_added_is_an_error(kind):
    scorer = TASKS[kind](NAMES, 9).new_scorer()
    with pytest.raises(ValueError, match="nothing was added"):
        scorer.compute()
    target = torch.full((2,) if kind == "classification" else (2, 1, 1), 9)
    scorer.update(logits_of(torch.zeros_like(target), 4), target)
    with pytest.raises(ValueError, match="every target is ignored"):
        scorer.compute()


@pytest.mark.parametrize("target", [4, -1, 255])
def test_a_target_that_is_no_class_is_an_error(target):
    with pytest.raises(ValueError, match=r"^1 targets are no class: must be 0 .. 3$"):
        score(Classification(NAMES), [0, 1], [0, target])


def test_nan_is_a_failure_and_no_score():
    scorer = Classification(NAMES).new_scorer()
    scorer.update(torch.tensor([[0.0, math.nan, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]), torch.tensor([1, 0]))
    with pytest.raises(EvaluationError, match="the network's output is NaN at 1 places"):
        scorer.compute()


def test_accuracy_over_batches():
    scorer = Classification(NAMES).new_scorer()
    scorer.update(logits_of(torch.tensor([0, 1, 2]), 4), torch.tensor([0, 1, 3]))
    scorer.update(logits_of(torch.tensor([3]), 4), torch.tensor([2]))
    assert scorer.compute() == {"accuracy": 0.5}


def slow_cross_entropy(logits, target, ignored, smoothing) -> float:
    losses = []
    for row, label in zip(logits, target, strict=True):
        if label != ignored:
            log_sum = math.log(sum(math.exp(value) for value in row))
            nll = [log_sum - value for value in row]
            losses.append((1 - smoothing) * nll[label] + smoothing * sum(nll) / len(nll))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classification_loss(smoothing):
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([0, 3, 9, 2, 9, 1])
    task = Classification(NAMES, 9, label_smoothing=smoothing)
    expected = slow_cross_entropy(logits.tolist(), target.tolist(), 9, smoothing)
    assert task.loss(logits, target).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_segmentation_loss_is_the_mean_over_counted_pixels(dtype):
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.arange(18).reshape(2, 3, 3) % 5
    rows = logits.movedim(1, -1).reshape(-1, 4).tolist()
    expected = slow_cross_entropy(rows, target.flatten().tolist(), 4, 0.0)
    assert Segmentation(NAMES, 4).loss(logits, target.to(dtype)).item() == pytest.approx(expected, abs=1e-12)


def test_the_loss_of_ignored_pixels_is_zero_and_so_is_its_gradient():
    logits = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = Segmentation(NAMES, 255).loss(logits, torch.full((1, 2, 2), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(
    "metric", ["mean_iou", "mean_f1", "mean_accuracy", "frequency_weighted_iou", "iou[b]", "f1[b]"]
)
def test_chance_level_is_what_a_constant_reaches_on_equal_classes(metric):
    target = torch.arange(4).reshape(1, 2, 2)
    task = Segmentation(NAMES)
    reached = score(task, torch.full_like(target, 2), target)[metric]
    if metric == "mean_f1":
        assert reached < task.chance_level(metric)
    elif metric == "mean_iou":
        assert reached == 1 / 16
    else:
        assert reached == pytest.approx(task.chance_level(metric))


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("metric", ["mean_iou", "mean_f1", "mean_accuracy"])
def test_no_constant_exceeds_the_chance_level_of_a_mean(metric, include_background):
    task = Segmentation(NAMES, include_background=include_background)
    for common in range(4):
        target = torch.tensor([0, 1, 2, 3] + [common] * 60).reshape(1, 8, 8)
        for constant in range(4):
            reached = score(task, torch.full_like(target, constant), target)[metric]
            assert reached <= task.chance_level(metric)


def test_chance_level_of_the_geometric_mean():
    task = Segmentation(NAMES)
    assert task.chance_level("geometric_mean_score") == pytest.approx((1 / 4 * 1 / 4 * 1 / 16) ** (1 / 3))
    scores = score(task, [[[0, 0, 0, 0]]], [[[0, 1, 2, 3]]])
    assert 0 < scores["geometric_mean_score"] <= task.chance_level("geometric_mean_score")


def test_chance_level_of_accuracy():
    assert Classification(NAMES).chance_level("accuracy") == 0.25


@pytest.mark.parametrize("task", [Classification(NAMES), Segmentation(NAMES)])
def test_an_unknown_metric_has_no_chance_level(task):
    with pytest.raises(KeyError):
        task.chance_level("iou[nose]")


def test_metrics_are_named_in_order():
    assert Segmentation(("x", "y")).metrics == (
        "mean_iou",
        "mean_f1",
        "mean_accuracy",
        "frequency_weighted_iou",
        "geometric_mean_score",
        "iou[x]",
        "iou[y]",
        "f1[x]",
        "f1[y]",
    )


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"^label_smoothing must be at least 0 and less than 1, got 1.0$"):
        Classification(NAMES, label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"^background must be one of the classes \['x', 'y'\], got 'background'$"):
        Segmentation(("x", "y"), include_background=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", TASKS)
def test_updating_and_the_loss_do_not_wait_for_the_gpu(kind):
    task = TASKS[kind](NAMES, 255)
    shape = (8,) if kind == "classification" else (8, 4, 4)
    target = torch.randint(0, 4, shape, device="cuda")
    output = torch.randn(8, 4, *shape[1:], device="cuda")
    scorer = task.new_scorer()
    try:
        torch.cuda.set_sync_debug_mode("error")
        task.loss(output, target)
        scorer.update(output, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu = task.new_scorer()
    on_cpu.update(output.cpu(), target.cpu())
    assert scorer.compute() == on_cpu.compute()


def test_class_weights_are_torchs_and_ignored_pixels_still_do_not_count():
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, 3, 4, 5, generator=generator)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, :2] = 255
    task = Segmentation(("a", "b", "c"), 255, class_weights=(1.0, 4.0, 0.5))
    expected = torch.nn.functional.cross_entropy(output, target, weight=torch.tensor([1.0, 4.0, 0.5]), ignore_index=255)
    torch.testing.assert_close(task.loss(output, target), expected)
    assert float(task.loss(output, torch.full_like(target, 255))) == 0.0


def test_class_weights_must_fit_the_classes():
    with pytest.raises(ValueError, match="class_weights must be 3 numbers"):
        Segmentation(("a", "b", "c"), class_weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="class_weights must be positive"):
        Segmentation(("a", "b"), class_weights=(1.0, 0.0))


def test_target_weights_are_those_of_the_classes_and_zero_where_ignored():
    target = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    task = Segmentation(("a", "b", "c"), 255, class_weights=(1.0, 4.0, 0.5))
    assert task.target_weights(target).tolist() == [[[1.0, 4.0], [0.5, 0.0]]]
    assert Segmentation(("a", "b", "c"), 255).target_weights(target).tolist() == [[[1.0, 1.0], [1.0, 0.0]]]
    assert Segmentation(("a", "b", "c")).target_weights(target) is None
