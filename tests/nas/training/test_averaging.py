"""Averaged weights and the batch statistics that belong to them."""

import pytest
import torch
from torch import nn

from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.tasks import Classification
from nas.training.averaging import MovingAverage, recompute_batch_norm
from nas.training.batches import ImageData
from nas.training.engine import train
from nas.training.student import Student
from nas.values.recipes import TrainingRecipe

pytestmark = pytest.mark.trains

TASK = Classification(("dark", "bright"))


def data():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(2, (48,), generator=generator)
    noise = torch.randint(120, (48, 1, 8, 8), generator=generator)
    images = (noise + 100 * targets[:, None, None, None]).to(torch.uint8)
    return ImageData(Examples(images, targets), Normalization.of(images))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_the_average_is_the_warmed_up_exponential_one():
    model = nn.Linear(1, 1, bias=False)
    average = MovingAverage(Student(model, data(), 0.0, 0), decay=0.3)
    expected = model.weight.item()
    for step, value in enumerate([1.0, 4.0, -2.0, 8.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    average.apply()
    assert model.weight.item() == pytest.approx(expected)


def test_statistics_are_the_means_over_the_batches():
    model, source = network(), data()
    batches = [source.batch(torch.arange(start, start + 16), 1, torch.Generator()) for start in (0, 16, 32)]
    recompute_batch_norm(Student(model, source, 0.0, 0), batches)
    inner = [model[0](batch.inputs) for batch in batches]
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inner]).mean(dim=0)
    variances = torch.stack([x.var(dim=(0, 2, 3)) for x in inner]).mean(dim=0)
    torch.testing.assert_close(model[1].running_mean, means)
    torch.testing.assert_close(model[1].running_var, variances)
    assert model[1].momentum == 0.1


def test_a_training_ends_with_the_average_and_its_statistics():
    plain, averaged = network(), network()
    recipe = {"epochs": 2, "batch_size": 16}
    train(plain, TrainingRecipe(**recipe), task=TASK, data=data(), seed=0)
    train(averaged, TrainingRecipe(**recipe, average_decay=0.9), task=TASK, data=data(), seed=0)
    assert not torch.equal(plain[4].weight, averaged[4].weight)
    source = data()
    inner = averaged[0](source.batch(torch.arange(48), 1, torch.Generator()).inputs)
    torch.testing.assert_close(averaged[1].running_mean, inner.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
