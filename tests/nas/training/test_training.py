import contextlib
import threading

import numpy as np
import pytest
import torch
from torch import nn

from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.errors import EvaluationError
from nas.tasks import Classification
from nas.torch_tools import torch_threads
from nas.training.augmentation import Augmentation
from nas.training.batches import ImageData, TrainingData
from nas.training.distillation import Distillation, kl_divergence
from nas.training.engine import _one_cycle, train
from nas.training.scoring import predict, score, scoring_batch_size
from nas.training.step import gradient_scaler
from nas.values.recipes import TrainingRecipe

pytestmark = pytest.mark.trains

CLASSES = ("dark", "bright")
TASK = Classification(CLASSES)
RECIPE = TrainingRecipe(epochs=3, batch_size=16)


def examples(n=64, seed=0):
    """Images that are dark or bright, with noise."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, n)
    images = rng.integers(0, 120, (n, 1, 8, 8)) + 100 * targets[:, None, None, None]
    return Examples(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(targets))


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
                             nn.Linear(4 * 36, 2))  # fmt: skip


def data(n=64, teacher=False):
    part = examples(n)
    logits = np.eye(2, dtype=np.float16)[part.targets.numpy()] * 4 if teacher else None
    return ImageData(part, Normalization.of(part.images), logits)


def trained(seed=0, recipe=RECIPE, **options):
    model = network()
    train(model, recipe, task=TASK, data=options.pop("data", data()), seed=seed, **options)
    return torch.cat([p.flatten() for p in model.state_dict().values()]).double()


def test_learns_and_scores():
    model = network()
    train(model, TrainingRecipe(epochs=8, batch_size=16), task=TASK, data=data(), seed=0)
    held_out = examples(200, seed=1)
    assert not model.training
    assert score(model, TASK, held_out, Normalization.of(held_out.images))["accuracy"] > 0.95


def test_equal_seeds_train_bit_for_bit_equal_and_other_seeds_differ():
    assert torch.equal(trained(seed=1), trained(seed=1))
    assert not torch.equal(trained(seed=1), trained(seed=2))


def test_neither_reads_nor_disturbs_the_global_generator():
    torch.manual_seed(0)
    first = trained(seed=1)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(trained(seed=1), first)
    torch.manual_seed(0)
    trained(seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_that_becomes_nan_is_an_error_that_says_where():
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="NaN or infinite at step 1 of 4 in epoch 1 of 3"):
        train(model, RECIPE, task=TASK, data=data(), seed=0)


def test_outputs_that_are_not_finite_are_no_score():
    model = network().eval()
    with torch.no_grad():
        model[-1].bias.fill_(float("inf"))
    part = examples()
    with pytest.raises(EvaluationError, match="NaN or infinite"):
        score(model, TASK, part, Normalization.of(part.images))


def test_distillation_changes_the_training_and_reports_its_share():
    summaries = []
    model = network()
    train(model, RECIPE, task=TASK, data=data(teacher=True), seed=0, distillation=Distillation(weight=0.5),
          on_epoch=summaries.append)  # fmt: skip
    assert [summary.epoch for summary in summaries] == [1, 2, 3]
    assert all(summary.distillation_loss > 0 for summary in summaries)
    last = summaries[-1]
    assert last.distillation_ratio == pytest.approx(last.distillation_loss / last.task_loss)
    state = torch.cat([p.flatten() for p in model.state_dict().values()]).double()
    assert not torch.equal(state, trained(data=data(teacher=True)))


def test_distillation_without_a_teacher_is_refused():
    with pytest.raises(ValueError, match="needs a teacher's logits"):
        train(network(), RECIPE, task=TASK, data=data(), seed=0, distillation=Distillation())


class Recorded(nn.Module):
    """A teacher that keeps what it was asked about; images are dark or bright by its say."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.weight = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images):
        self.seen.append(images.clone())
        mean = self.norm(images * self.weight).mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


def test_a_live_teacher_is_asked_about_the_batch_as_varied_and_learns_nothing():
    part = examples(32)
    augmentation = Augmentation(brightness=0.5, scale=(0.5, 2.0))
    teacher, model = Recorded(), network()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    varied = ImageData(part, Normalization.of(part.images), augmentation=augmentation, task=TASK)
    method = Distillation(weight=0.5, teacher="live")
    summary = train(model, TrainingRecipe(epochs=2, batch_size=16), task=TASK, data=varied, seed=3,
                    distillation=method, teacher=teacher.train())  # fmt: skip
    assert summary.distillation_loss > 0
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert teacher.weight.grad is None
    generator = torch.Generator().manual_seed(3)
    expected = []
    for epoch in (1, 2):
        order = torch.randperm(32, generator=generator).view(2, 16)
        expected += [batch.inputs for batch in varied.batches(order, epoch, generator)]
    assert torch.equal(torch.cat(teacher.seen), torch.cat(expected))


def test_a_live_teacher_says_what_was_stored_where_nothing_is_varied():
    part, teacher = examples(32), Recorded().eval()
    normalization = Normalization.of(part.images)
    with torch.no_grad():
        said = teacher(normalization(part.images)).numpy()
    method = Distillation(weight=0.5)
    stored = trained(data=ImageData(part, normalization, said), distillation=method)
    live = trained(data=ImageData(part, normalization), distillation=method, teacher=teacher)
    torch.testing.assert_close(live, stored)


def test_kl_divergence_is_hintons_mean_over_images_and_pixels():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    temperature, total = 2.5, 0.0
    for image in range(2):
        for row in range(4):
            for column in range(5):
                p = np.exp(teacher[image, :, row, column].numpy() / temperature)
                q = np.exp(student[image, :, row, column].numpy() / temperature)
                p, q = p / p.sum(), q / q.sum()
                total += (p * np.log(p / q)).sum()
    expected = total / (2 * 4 * 5) * temperature**2
    assert float(kl_divergence(student, teacher, temperature)) == pytest.approx(expected)
    assert float(kl_divergence(teacher, teacher, temperature)) == pytest.approx(0.0, abs=1e-12)


def test_the_distillation_gradient_does_not_shrink_with_the_temperature():
    """Hinton et al.: at high temperatures the gradient of T**2 KL tends to (student - teacher) / n_classes."""
    student = torch.tensor([[1.0, -2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.5, 0.5, -1.0]], dtype=torch.float64)
    kl_divergence(student, teacher, 1000.0).backward()
    np.testing.assert_allclose(student.grad, (student - teacher).detach() / 3, atol=1e-3)


def test_normalization_gives_each_channel_mean_zero_and_deviation_one():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (10, 2, 6, 6), dtype=np.uint8))
    images[:, 1] = 7
    normalised = Normalization.of(images)(images)
    np.testing.assert_allclose(normalised.mean(dim=(0, 2, 3)), [0, 0], atol=1e-6)
    assert float(normalised[:, 0].std(correction=0)) == pytest.approx(1.0, abs=1e-6)


def test_examples_in_parts_are_scored_as_all_at_once():
    model, part = network().eval(), examples(50)
    normalization = Normalization.of(part.images)
    parts = (Examples(part.images[i : i + 20], part.targets[i : i + 20]) for i in (0, 20, 40))
    assert score(model, TASK, parts, normalization) == score(model, TASK, part, normalization)


def test_predict_keeps_the_order_and_refuses_train_mode():
    model, part = network().eval(), examples(50)
    normalization = Normalization.of(part.images)
    batches = list(predict(model, part.images, normalization, batch_size=16))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    whole = next(predict(model, part.images, normalization, batch_size=50))
    torch.testing.assert_close(torch.cat(batches), whole)
    with pytest.raises(ValueError, match="eval mode"):
        next(predict(model.train(), part.images, normalization))


@pytest.mark.parametrize(
    ("device", "side", "expected"),
    [("cpu", 64, 64), ("cuda", 64, 1024), ("cuda:1", 28, 5349), ("cuda", 256, 64), ("cuda", 1024, 64)],
)
def test_a_gpu_scores_as_many_images_at_once_as_pixels_allow(device, side, expected):
    assert scoring_batch_size(device, side * side) == expected


@pytest.mark.gpu
def test_resident_images_are_scored_as_those_on_the_host_are():
    part, model = examples(3000), network().eval()
    normalization = Normalization.of(part.images)
    resident = Examples(part.images.cuda(), part.targets.cuda())
    assert score(model, TASK, resident, normalization, device="cuda") == score(
        model, TASK, part, normalization, device="cuda", batch_size=64
    )


def test_a_batch_larger_than_the_data_is_the_data():
    model = network()
    summary = train(model, TrainingRecipe(epochs=1, batch_size=500), task=TASK, data=data(20), seed=0)
    assert summary.n_epochs == 1


def test_threads_are_restored():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"average_decay": 1.0}, "average_decay must be at least 0 and less than 1, got 1.0"),
        ({"auxiliary_weight": -1}, "auxiliary_weight must be at least 0, got -1"),
    ],
)
def test_recipes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingRecipe(**options)


@pytest.mark.gpu
def test_trains_on_cuda():
    model = network()
    part = examples()
    logits = np.eye(2, dtype=np.float16)[part.targets.numpy()] * 4
    normalization = Normalization.of(part.images)
    resident, sent = (
        ImageData(part, normalization, logits, device="cuda", resident_bytes=n_bytes) for n_bytes in (2**20, 0)
    )
    states = []
    for where in (resident, sent):
        model = network()
        train(model, RECIPE, task=TASK, data=where, seed=0, distillation=Distillation())
        states.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*states)
    assert next(model.parameters()).is_cuda


@pytest.mark.gpu
@pytest.mark.parametrize("n_bytes", [2**20, 0])
def test_a_captured_step_trains_as_one_that_runs_operator_by_operator(monkeypatch, n_bytes):
    part = examples(256)
    logits = np.eye(2, dtype=np.float16)[part.targets.numpy()] * 4
    where = ImageData(part, Normalization.of(part.images), logits, device="cuda", resident_bytes=n_bytes)
    recipe = TrainingRecipe(epochs=4, batch_size=16, average_decay=0.9)
    states = []
    for is_captured in (True, False):
        if not is_captured:
            monkeypatch.setattr("nas.training.engine.fastest_step", lambda step, example, n_steps: step)
        model = network()
        model[4].p = 0.0  # a captured step draws other dropout masks
        train(model, recipe, task=TASK, data=where, seed=0, distillation=Distillation())
        states.append(torch.cat([p.flatten() for p in model.state_dict().values()]))
    torch.testing.assert_close(*states, atol=1e-3, rtol=1e-2)


@pytest.mark.gpu
def test_a_step_that_waits_for_the_device_falls_back_and_says_why(caplog):
    class Waiting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) * float(x.mean().item() > -9)

    part = examples(256)
    where = ImageData(part, Normalization.of(part.images), device="cuda", resident_bytes=2**20)
    model = Waiting()
    train(model, TrainingRecipe(epochs=4, batch_size=16), task=TASK, data=where, seed=0)
    assert "could not be captured" in caplog.text
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.gpu
def test_bfloat16_trains_float32_weights():
    part = examples()
    where = ImageData(part, Normalization.of(part.images), device="cuda")
    model = network()
    train(model, RECIPE, task=TASK, data=where, seed=0, precision=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


class OnTheOtherGpu(TrainingData):
    """Says that it trains on the second of two GPUs; its batches tell which GPU was current when they were made."""

    device = torch.device("cuda:1")

    def __init__(self, current):
        self.current = current

    def __len__(self):
        return 4

    def batch(self, rows, epoch, generator):
        return rows.tolist(), self.current[-1], threading.current_thread()


def test_batches_are_fetched_with_their_gpu_as_the_current_one(monkeypatch):
    current = [torch.device("cuda:0")]

    @contextlib.contextmanager
    def make_current(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", make_current)
    order = torch.arange(4).view(4, 1)
    batches = list(OnTheOtherGpu(current).batches(order, 1, torch.Generator()))
    assert [rows for rows, _, _ in batches] == [[0], [1], [2], [3]]
    assert {device for _, device, _ in batches} == {torch.device("cuda:1")}
    assert {thread for _, _, thread in batches}.isdisjoint({threading.main_thread()})
    assert len(current) == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_trains_on_a_gpu_that_is_not_the_current_one():
    part = examples(256)
    recipe = TrainingRecipe(epochs=4, batch_size=16)
    states = []
    for device in ("cuda:0", "cuda:1"):
        model = network()
        where = ImageData(part, Normalization.of(part.images), device=device)
        train(model, recipe, task=TASK, data=where, seed=0)
        states.append(torch.cat([p.flatten().cpu() for p in model.parameters()]))
        assert torch.cuda.current_device() == 0
    torch.testing.assert_close(*states)


@pytest.mark.gpu
def test_a_live_teacher_is_captured_with_the_step(monkeypatch, caplog):
    part = examples(256)
    varied = ImageData(part, Normalization.of(part.images), augmentation=Augmentation(brightness=0.5), task=TASK,
                       device="cuda", resident_bytes=2**20)  # fmt: skip
    teacher, states = network(seed=1), []
    for is_captured in (True, False):
        if not is_captured:
            monkeypatch.setattr("nas.training.engine.fastest_step", lambda step, example, n_steps: step)
        model = network()
        model[4].p = 0.0  # a captured step draws other dropout masks
        train(model, TrainingRecipe(epochs=4), task=TASK, data=varied, seed=0, distillation=Distillation(),
              teacher=teacher)  # fmt: skip
        states.append(torch.cat([p.flatten() for p in model.state_dict().values()]))
    assert "could not be captured" not in caplog.text
    torch.testing.assert_close(*states, atol=1e-3, rtol=1e-2)


@pytest.mark.gpu
def test_float16_trains_captured_as_operator_by_operator(monkeypatch):
    part = examples(256)
    where = ImageData(part, Normalization.of(part.images), device="cuda", resident_bytes=2**20)
    states = []
    for is_captured in (True, False):
        if not is_captured:
            monkeypatch.setattr("nas.training.engine.fastest_step", lambda step, example, n_steps: step)
        model = network()
        model[4].p = 0.0  # a captured step draws other dropout masks
        train(model, TrainingRecipe(epochs=4), task=TASK, data=where, seed=0, precision=torch.float16)
        states.append(torch.cat([p.flatten() for p in model.state_dict().values()]))
    torch.testing.assert_close(*states, atol=1e-2, rtol=2e-2)


def test_float16_scales_the_gradient_and_leaves_out_steps_that_overflow(monkeypatch):
    """From a scale that is far too large it comes down by halves; until then no weight moves."""
    made = []

    def scaler(precision, device):
        made.append(torch.amp.GradScaler(device.type, init_scale=2.0**40))
        return made[0]

    monkeypatch.setattr("nas.training.engine.gradient_scaler", scaler)
    model = network()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    train(model, TrainingRecipe(epochs=1), task=TASK, data=data(), seed=0, precision=torch.float16)
    assert made[0].get_scale() == 2.0**36  # four steps
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), before)
    train(model, TrainingRecipe(epochs=8), task=TASK, data=data(), seed=0, precision=torch.float16)
    held_out = examples(200, seed=1)
    assert score(model, TASK, held_out, Normalization.of(held_out.images))["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("precision", "is_scaled"), [(torch.float32, False), (torch.bfloat16, False), (torch.float16, True)]
)
def test_only_float16_needs_a_scale(precision, is_scaled):
    assert (gradient_scaler(precision, torch.device("cpu")) is not None) is is_scaled


def test_bfloat16_gives_other_weights_of_the_same_type():
    model = network()
    train(model, RECIPE, task=TASK, data=data(), seed=1, precision=torch.bfloat16)
    state = torch.cat([p.flatten() for p in model.state_dict().values()]).double()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not torch.equal(state, trained(seed=1))
    torch.testing.assert_close(state, trained(seed=1), atol=0.2, rtol=0.2)


def test_kl_divergence_counts_pixels_by_weight():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    weights = torch.zeros(2, 4, 5)
    weights[1, 2, 3], weights[0, 0, 0] = 3.0, 1.0
    one, three = (
        kl_divergence(student[i, :, y, x][None], teacher[i, :, y, x][None], 2.0) for i, y, x in ((0, 0, 0), (1, 2, 3))
    )
    torch.testing.assert_close(kl_divergence(student, teacher, 2.0, weights), (one + 3 * three) / 4)
    assert float(kl_divergence(student, teacher, 2.0, torch.zeros(2, 4, 5))) == 0.0


@pytest.mark.parametrize("n_steps", range(1, 31))
def test_the_schedule_takes_any_number_of_steps_and_ends_low(n_steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = _one_cycle(optimizer, 1.0, n_steps)
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) <= 1.0
    if n_steps >= 4:
        assert max(rates) == pytest.approx(1.0, rel=0.1)
        assert rates[-1] < 0.3
