"""The stages one by one: what each reads off a candidate."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from latency.devices import FakeDevice
from nas.data.cache import ExamplesFile
from nas.data.normalization import Normalization
from nas.errors import EvaluationError
from nas.evaluation import ComplexityStage, DeviceStage, FunctionStage, ModelSignature, Need, Subject, TrainingStage
from nas.evaluation.evaluator import Evaluator, Job
from nas.evaluation.stages import confirm
from nas.pretrained.teacher import Teacher, TeacherOutputs, TeacherSpec
from nas.search.listener import SearchListener
from nas.store.artifacts import ArtifactCache
from nas.tasks import Classification
from nas.torch_tools import load_weights, save_weights
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.scoring import score
from nas.training.setting import TrainingSetting
from nas.values.recipes import StageRecipe
from nas.values.records import Candidate, Pruning, RecordState
from search_spaces import Integers, NasBench201

pytestmark = pytest.mark.trains

SPACE = NasBench201(width=4, cells_per_stage=1)
SIGNATURE = ModelSignature(1, (8, 8), 3)
TASK = Classification(("a", "b", "c"))
NORMALIZATION = Normalization((0.5,), (0.25,))


def subject(genes=(1, 2, 3, 1, 0, 4), space=SPACE):
    return Subject(Candidate.create(space, space.genotype(genes), 0), space, SIGNATURE)


def readings(observations):
    return {o.metric: o.value for o in observations}


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    parts = []
    for name, n in (("train", 24), ("validation", 12)):
        labels = rng.integers(0, 3, n)
        images = (rng.integers(0, 60, (n, 1, 8, 8)) + labels[:, None, None, None] * 90).astype(np.uint8)
        paths = (tmp_path / f"{name}_images.npy", tmp_path / f"{name}_targets.npy")
        for path, array in zip(paths, (images, labels), strict=True):
            np.save(path, array)
        parts.append(ExamplesFile(*paths))
    np.save(tmp_path / "logits.npy", np.eye(3, dtype=np.float16)[np.load(tmp_path / "train_targets.npy")])
    return parts


def training_stage(files, tmp_path, **options):
    train, validation = files
    setting = TrainingSetting(
        data_fingerprint="",
        train=train,
        validation=validation,
        normalization=NORMALIZATION,
        task=TASK,
        task_options={},
        in_channels=1,
        n_classes=3,
        seed=0,
        device="cpu",
        n_threads=1,
    )
    stages = options.pop("stages", (StageRecipe(epochs=2, batch_size=8),))
    return TrainingStage(setting, stages, **options)


def test_counts_are_the_networks():
    one = subject()
    found = readings(ComplexityStage().run(one))
    assert found["n_params"] == sum(p.numel() for p in one.model.parameters())
    macs = 0

    def add(module, inputs, output):
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        if isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features

    hooks = [module.register_forward_hook(add) for module in one.model.modules()]
    one.model(torch.zeros(1, 1, 8, 8))
    assert found["n_macs"] == macs
    assert len(hooks) > 10


def test_a_device_gives_the_wanted_metrics_under_their_keys():
    device = FakeDevice(spread=0.25)
    stage = DeviceStage("phone", device, {"latency_ms": "latency_ms[phone]"})
    one = subject()
    (reading,) = stage.run(one)
    expected = device.measure_latency(one.model.eval(), SIGNATURE.input_shape)
    assert (reading.metric, reading.value, reading.stage) == ("latency_ms[phone]", expected.median_ms, "device:phone")
    assert {**expected.conditions, "p10_ms": expected.p10_ms, "p90_ms": expected.p90_ms, "n_runs": 1} == dict(
        reading.conditions
    )
    both = DeviceStage("phone", device, {"latency_ms": "t", "peak_memory_bytes": "m"})
    assert readings(both.run(one)) == {
        "t": expected.median_ms,
        "m": device.measure_peak_memory(one.model, SIGNATURE.input_shape).peak_bytes,
    }
    assert both.provides == {"t", "m"}
    assert Need.EXCLUSIVE_DEVICE in both.needs


class Scripted(FakeDevice):
    """Gives the latencies that a test wrote down."""

    def measure_latency(self, model, input_shape):
        value = SCRIPT.pop(0)
        stats = super().measure_latency(model, input_shape)
        return dataclasses.replace(stats, median_ms=value, p10_ms=value, p90_ms=value)


SCRIPT: list[float] = []


def test_confirmed_is_the_median_of_interleaved_rounds():
    SCRIPT[:] = [1.0, 10.0, 5.0, 30.0, 2.0, 20.0]  # A B A B A B
    one, other = subject(), subject((0, 2, 3, 1, 0, 4))
    found = confirm(DeviceStage("phone", Scripted(), {"latency_ms": "t"}), [one, other], 3)
    assert {identity: [o.value for o in readings] for identity, readings in found.items()} == {
        one.candidate.id: [2.0],
        other.candidate.id: [20.0],
    }
    assert found[one.candidate.id][0].conditions["rounds"] == [1.0, 5.0, 2.0]


def test_a_function_is_given_the_subject():
    space = Integers(n_genes=2, n_values=5)
    stage = FunctionStage("total", lambda given: sum(given.genotype.genes) + given.metrics["before"])
    one = subject((2, 3), space)
    one.metrics = {"before": 10.0}
    assert readings(stage.run(one)) == {"total": 15.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "many"])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(EvaluationError, match="function:x: x must be a finite number, got "):
        FunctionStage("x", lambda given: value).run(subject())


def test_a_space_without_networks_builds_none():
    with pytest.raises(EvaluationError, match="'integers' builds no network"):
        _ = subject((1,), Integers(n_genes=1, n_values=3)).model


def test_a_training_scores_the_weights_that_it_keeps(files, tmp_path):
    weights = {}
    stage = training_stage(files, tmp_path, weights=lambda identity: weights.setdefault(identity, tmp_path / identity))
    epochs = []
    one = subject()
    one.on_epoch = epochs.append
    found = readings(stage.run(one))
    assert len(epochs) == 2
    assert [found.pop(f"task_loss[{epoch.epoch}]") for epoch in epochs] == [epoch.task_loss for epoch in epochs]
    assert found.keys() == {"accuracy"} == stage.provides
    fresh = subject().model
    load_weights(fresh, weights[one.candidate.id])
    assert found == score(fresh.eval(), TASK, files[1].load(), NORMALIZATION)


TWO_STAGES = (StageRecipe(epochs=1, batch_size=8), StageRecipe(epochs=2, batch_size=8))


def test_stages_follow_each_other_and_leave_a_score_between_them(files, tmp_path):
    epochs = []
    one = subject()
    one.on_epoch = epochs.append
    found = training_stage(files, tmp_path, stages=TWO_STAGES, interim_score="accuracy").run(one)
    assert [(epoch.epoch, epoch.n_epochs) for epoch in epochs] == [(1, 3), (2, 3), (3, 3)]
    assert [(o.stage, o.metric) for o in found] == [
        ("training@epochs", "task_loss[1]"),
        ("training@1", "accuracy@1"),
        ("training@epochs", "task_loss[2]"),
        ("training@epochs", "task_loss[3]"),
        ("training", "accuracy"),
    ]
    assert [o.value for o in found if o.stage == "training@epochs"] == [epoch.task_loss for epoch in epochs]
    assert found[1].conditions == {"epochs": 1}
    first = readings(training_stage(files, tmp_path, stages=TWO_STAGES[:1]).run(subject()))
    assert readings(found)["accuracy@1"] == first["accuracy"]
    again = subject()
    again.thresholds = {"accuracy@1": first["accuracy"]}  # not below it
    assert readings(
        training_stage(files, tmp_path, stages=TWO_STAGES, interim_score="accuracy").run(again)
    ) == readings(found)


THREE_STAGES = (*TWO_STAGES, StageRecipe(epochs=1, batch_size=8))


def test_a_candidate_below_its_threshold_is_pruned_with_its_score(files, tmp_path):
    events = []
    stage = training_stage(files, tmp_path, stages=THREE_STAGES, interim_score="accuracy")
    evaluator = Evaluator({SPACE.name: SPACE}, (stage,), SIGNATURE, frozenset({"accuracy"}))
    evaluator.run(Job(subject().candidate, thresholds={"accuracy@2": 1.5}), events.append)
    *_, reading, ended = events
    *_, observation = reading.observations
    assert (ended.state, ended.pruning) == (
        RecordState.PRUNED,
        Pruning("training", "accuracy@2", observation.value),
    )
    assert [type(event).__name__ for event in events] == ["Progress"] * 3 + ["Reading", "Ended"]
    # all that was found until then
    assert readings(reading.observations).keys() == {
        "task_loss[1]", "accuracy@1", "task_loss[2]", "task_loss[3]", "accuracy@2",
    }  # fmt: skip


def test_a_distillation_reports_how_large_its_term_was(files, tmp_path):
    options = {"distillation": Distillation(weight=0.5), "teacher_logits": tmp_path / "logits.npy"}
    epochs = []
    one = subject()
    one.on_epoch = epochs.append
    found = readings(training_stage(files, tmp_path, **options).run(one))
    assert found["distillation_ratio"] == epochs[-1].distillation_ratio > 0
    assert Need.TEACHER in training_stage(files, tmp_path, **options).needs


def test_all_that_a_process_loads_shares_one_amount_of_the_accelerators_memory(files, tmp_path):
    """The meta device stands in for an accelerator: it holds tensors that are not the host's."""
    stage = training_stage(files, tmp_path)
    images = 24 * 64 + 24 * 8
    stage._setting = dataclasses.replace(stage._setting, device="meta", resident_bytes=images + 12 * 64 + 12 * 8)
    assert stage._image_data.n_resident_bytes == images
    assert stage._setting_now.resident_bytes == 12 * 64 + 12 * 8
    assert stage._validation.images.device.type == "meta"
    assert stage._setting_now.resident_bytes == 0
    stage = training_stage(files, tmp_path)
    stage._setting = dataclasses.replace(stage._setting, device="meta", resident_bytes=12 * 64 + 12 * 8 + 1)
    assert stage._validation.images.device.type == "meta"
    assert stage._image_data.n_resident_bytes == 0


def test_a_live_teacher_is_asked_about_images_and_its_stored_outputs_about_features(files, tmp_path, monkeypatch):
    asked, weights = [], tmp_path / "teacher.safetensors"
    spec = TeacherSpec("resnet", {"depth": 8, "width": 4}, weights=weights)
    save_weights(spec.build(1, 3), weights)
    method = Distillation(weight=0.5, teacher="live")
    stage = training_stage(files, tmp_path, distillation=method)
    stage._teacher = teacher = Teacher(ArtifactCache(tmp_path / "made"), stage._setting, spec)
    monkeypatch.setattr(
        "nas.evaluation.stages.train", lambda *given, teacher, **options: asked.append(teacher) or train(
            *given, teacher=teacher, **options)
    )  # fmt: skip
    live = readings(pickle.loads(pickle.dumps(stage)).run(subject()))  # noqa: S301
    assert isinstance(asked[0], nn.Module)
    assert live["distillation_ratio"] > 0
    assert stage.files[-1] == weights
    # Where nothing is varied, stored outputs are those that it would give.
    stage = training_stage(files, tmp_path, distillation=Distillation(weight=0.5))
    outputs = TeacherOutputs(teacher.cache, stage._setting, teacher, files[0])
    outputs.make(SearchListener())
    stage._teacher_logits = outputs.path
    stored = readings(stage.run(subject()))
    assert stored == pytest.approx(live, rel=1e-2)


def test_a_training_is_the_same_in_another_process(files, tmp_path):
    stage = training_stage(files, tmp_path)
    found = readings(stage.run(subject()))
    sent = pickle.dumps(stage)  # its arrays loaded by now
    assert len(sent) < 5000
    assert readings(pickle.loads(sent).run(subject())) == found  # noqa: S301
