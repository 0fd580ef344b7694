"""The losses by name: Dice and boundary terms of segmentation, and what distillation compares."""

import math

import numpy as np
import pytest
import torch

from nas.tasks import Segmentation
from nas.tasks.region_losses import dice_loss, near_boundary
from nas.torch_tools import no_waiting
from nas.training.distillation import DISTILLATION_LOSSES, Distillation, channel_wise_divergence, squared_error

NAMES = ("a", "b", "c", "d")


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(ignored=None):
    """Return `(2, 6, 7)` targets with the classes 0 .. 2 of 4, and some ignored ones."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (2, 6, 7)).astype(np.uint8)
    if ignored is not None:
        target[rng.random(target.shape) < 0.3] = ignored
    return torch.from_numpy(target)


@pytest.mark.parametrize("ignored", [None, 255])
def test_dice_is_the_mean_over_the_classes_of_the_batch(ignored):
    output, target = logits(2, 4, 6, 7), masks(ignored)
    coefficients = []
    for label in range(3):
        overlap = size = 0.0
        for image in range(2):
            for y in range(6):
                for x in range(7):
                    if target[image, y, x] == ignored:
                        continue
                    p = np.exp(output[image, :, y, x].numpy())
                    p = (p / p.sum())[label]
                    is_label = float(target[image, y, x] == label)
                    overlap += p * is_label
                    size += p + is_label
        coefficients.append(2 * overlap / size)
    expected = 1 - sum(coefficients) / 3
    assert dice_loss(output, target, ignored).item() == pytest.approx(expected, abs=1e-12)


def test_dice_of_a_sure_and_right_answer_is_zero_and_of_no_class_too():
    target = masks()
    output = torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 1) * 100.0
    assert dice_loss(output, target, None).item() == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(output, torch.full_like(target, 9), 9).item() == 0.0


@pytest.mark.parametrize("ignored", [None, 255])
def test_boundaries_are_where_another_class_is_within_two_pixels(ignored):
    target = torch.zeros(2, 9, 9, dtype=torch.uint8)
    target[0, :, 6:] = 3
    target[0, 8, 0] = 1
    target[1, 4, 4] = 2
    if ignored is not None:
        target[0, :4, 5:7] = ignored
        target[1, :, 3] = ignored
    expected = np.zeros(target.shape, dtype=bool)
    for image, y, x in np.ndindex(*target.shape):
        label = target[image, y, x]
        window = target[image, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].unique()
        others = [value for value in window.tolist() if value not in (int(label), ignored)]
        # near an edge of two others, a pixel of a third class has another class near as well
        expected[image, y, x] = label != ignored and bool(others)
    assert expected.any()
    assert not expected.all()
    np.testing.assert_array_equal(near_boundary(target, 4, ignored).numpy(), expected)


@pytest.mark.parametrize("ignored", [None, 255])
def test_the_terms_are_added_by_weight(ignored):
    output, target = logits(2, 4, 6, 7), masks(ignored)
    target[:, :, 3:] = 0
    weights = (1.0, 2.0, 3.0, 4.0)
    plain = Segmentation(NAMES, ignored, class_weights=weights)
    near = near_boundary(target, 4, ignored)
    assert 0 < near.sum() < near.numel()
    chosen = torch.tensor(weights, dtype=torch.float64)
    band = torch.nn.functional.cross_entropy(
        output, target.long().masked_fill(~near, -100), weight=chosen, ignore_index=-100
    )
    dice = dice_loss(output, target, ignored)
    task = Segmentation(NAMES, ignored, class_weights=weights, dice_weight=0.5, boundary_weight=2.0)
    torch.testing.assert_close(task.loss(output, target), plain.loss(output, target) + 0.5 * dice + 2.0 * band)


def test_terms_over_nothing_are_zero_with_zero_gradients():
    output = logits(1, 4, 3, 3).requires_grad_()
    loss = Segmentation(NAMES, 255, dice_weight=1.0, boundary_weight=1.0).loss(
        output, torch.full((1, 3, 3), 255, dtype=torch.uint8)
    )
    loss.backward()
    assert loss.item() == 0.0
    assert output.grad is not None
    assert not output.grad.any()


@pytest.mark.parametrize("name", ["dice_weight", "boundary_weight"])
def test_weights_of_terms_are_checked(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 0, got -1$"):
        Segmentation(NAMES, **{name: -1})


def test_squared_error_is_the_mean_over_classes_and_counted_pixels():
    student, teacher = logits(2, 3, 4, 5), logits(2, 3, 4, 5, seed=1)
    difference = (student - teacher).numpy() ** 2
    assert squared_error(student, teacher, 3.0).item() == pytest.approx(difference.mean())
    weights = torch.zeros(2, 4, 5, dtype=torch.float64)
    weights[0, 1, 2], weights[1, 3, 4] = 3.0, 1.0
    expected = (3 * difference[0, :, 1, 2].mean() + difference[1, :, 3, 4].mean()) / 4
    assert squared_error(student, teacher, 3.0, weights).item() == pytest.approx(expected)


@pytest.mark.parametrize("is_weighted", [True, False])
def test_channel_wise_divergence_compares_where_each_class_is(is_weighted):
    student, teacher, temperature = logits(2, 3, 4, 5), logits(2, 3, 4, 5, seed=1), 4.0
    weights = torch.ones(2, 4, 5)
    if is_weighted:
        weights[0, 1:], weights[1, :, 2] = 0.0, 0.0
        weights[1, :, 0] = 7.0
    total = 0.0
    for image in range(2):
        kept = weights[image].numpy() > 0
        for channel in range(3):
            p = np.exp(teacher[image, channel].numpy()[kept] / temperature)
            q = np.exp(student[image, channel].numpy()[kept] / temperature)
            p, q = p / p.sum(), q / q.sum()
            total += (p * np.log(p / q)).sum()
    expected = temperature**2 * total / (2 * 3)
    given = weights if is_weighted else None
    got = channel_wise_divergence(student, teacher, temperature, given).item()
    assert got == pytest.approx(expected, rel=1e-5)


def test_channel_wise_divergence_of_classification_is_refused():
    with pytest.raises(ValueError, match=r"channel_wise needs logits of pixels, \(B, K, H, W\), got \(2, 3\)"):
        channel_wise_divergence(logits(2, 3), logits(2, 3), 1.0)


@pytest.mark.parametrize("loss", DISTILLATION_LOSSES)
def test_every_loss_is_zero_at_the_teacher_and_where_nothing_counts(loss):
    teacher = logits(2, 3, 4, 5).half()
    distillation = Distillation(loss=loss, weight=2.0)
    assert distillation.term(teacher.float(), teacher).item() == pytest.approx(0.0, abs=1e-6)
    student = logits(2, 3, 4, 5, seed=1).float().requires_grad_()
    term = distillation.term(student, teacher, torch.zeros(2, 4, 5))
    term.backward()
    assert term.item() == 0.0
    assert student.grad is not None
    assert math.isfinite(student.grad.sum().item())
    assert distillation.term(student, teacher).item() > 0


@pytest.mark.gpu
def test_the_terms_do_not_wait_for_the_gpu():
    task = Segmentation(NAMES, 255, dice_weight=1.0, boundary_weight=1.0)
    output, target = logits(2, 4, 6, 7).cuda(), masks(255).cuda()

    def terms():
        task.loss(output, target)
        for loss in DISTILLATION_LOSSES:
            Distillation(loss=loss).term(output, output + 1)

    terms()  # constants are copied to the GPU once
    with no_waiting():
        terms()
