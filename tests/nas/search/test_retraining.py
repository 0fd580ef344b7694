"""Retraining: on all but the test split, from scratch, as in the search but longer."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import nas
from nas.data import FashionMnist
from nas.data.base import Examples, Split
from nas.errors import DataError, EvaluationError
from nas.evaluation import ModelSignature, Subject
from nas.search.retraining import FullTraining, RetrainingParts, retrain
from nas.store.run_folder import RunFolder
from nas.tasks import Classification
from nas.torch_tools import load_weights, save_weights
from nas.training.augmentation import Augmentation
from nas.training.batches import ImageData
from nas.training.distillation import Distillation
from nas.training.scoring import score
from nas.values.recipes import TrainingRecipe
from nas.values.records import Candidate, RecordState
from search_spaces import NasBench201

pytestmark = pytest.mark.trains

SPACE = NasBench201(width=4, cells_per_stage=1)
CANDIDATE = Candidate.create(SPACE, SPACE.genotype((1, 2, 3, 1, 0, 4)), 0)


@pytest.fixture
def folder(tmp_path):
    with RunFolder.write(tmp_path / "run") as folder:
        folder.store.add_batch([CANDIDATE], batch=0)
        yield folder


@pytest.fixture
def parts(tiny_config, make_setting):
    dataset = FashionMnist(tiny_config.parent / "data", n_train=40, n_validation=20)
    return RetrainingParts(
        space=SPACE,
        dataset=dataset,
        setting=make_setting(dataset, Classification(dataset.class_names)),
        teacher_logits=(),
        recipe=TrainingRecipe(epochs=1, batch_size=20),
        distillation=None,
    )


def subject():
    return Subject(CANDIDATE, SPACE, ModelSignature(1, (28, 28), 10))


def test_scores_are_those_of_the_stored_weights_on_the_test_split(parts, folder):
    epochs = []
    scores = retrain(parts, subject(), folder, FullTraining(3), on_epoch=epochs.append)
    assert [(epoch.epoch, epoch.n_epochs) for epoch in epochs] == [(1, 3), (2, 3), (3, 3)]
    model = subject().model
    load_weights(model, folder.weights(CANDIDATE.id, "retrained"))
    test = parts.dataset.load(Split.TEST)
    assert scores == score(model.eval(), parts.setting.task, test, parts.setting.normalization)
    record = folder.store.record(CANDIDATE.id)
    assert record.retrained == scores
    assert record.metrics == {}
    assert record.retrained_conditions == {"split": "test", "epochs": 3, "n_images": 20, "seed": CANDIDATE.seed}


def test_it_trains_on_training_and_validation_images_in_that_order(parts, folder, monkeypatch):
    seen = {}

    def recorded(model, recipe, *, data, **options):
        seen.update(data=data, recipe=recipe, **options)
        model.eval()

    np.save(folder.path / "a.npy", np.zeros((40, 10), np.float16))
    np.save(folder.path / "b.npy", np.ones((20, 10), np.float16))
    logits = (folder.path / "a.npy", folder.path / "b.npy")
    monkeypatch.setattr("nas.search.retraining.train", recorded)
    method = Distillation(weight=0.25)
    retrain(dataclasses.replace(parts, teacher_logits=logits, distillation=method), subject(), folder, FullTraining(7))
    setting = parts.setting
    images = torch.cat([split.load().images for split in (setting.train, setting.validation)])
    batch = seen["data"].batch(torch.arange(60), 1, torch.Generator())
    assert torch.equal(batch.inputs, setting.normalization(images))
    assert batch.teacher_logits[:, 0].tolist() == [0.0] * 40 + [1.0] * 20
    assert seen["recipe"] == dataclasses.replace(parts.recipe, epochs=7)
    assert (seen["seed"], seen["distillation"]) == (CANDIDATE.seed, method)


def test_each_reading_of_the_test_split_is_logged_even_if_it_fails(parts, folder, tiny_config):
    class Broken(FashionMnist):
        def load(self, split):
            raise DataError(["t10k: broken"])

    retrain(parts, subject(), folder, FullTraining(1))
    broken = dataclasses.replace(parts, dataset=Broken(tiny_config.parent / "data", n_validation=20))
    with pytest.raises(DataError, match="t10k: broken"):
        retrain(broken, subject(), folder, FullTraining(2))
    logged = [(candidate, purpose) for candidate, purpose, _ in folder.store.test_readings()]
    assert logged == [(CANDIDATE.id, "retraining, 1 epochs"), (CANDIDATE.id, "retraining, 2 epochs")]


def test_a_broken_test_split_costs_no_training(parts, folder, tiny_config, monkeypatch):
    class Broken(FashionMnist):
        def load(self, split):
            raise DataError(["t10k: broken"])

    monkeypatch.setattr("nas.search.retraining.train", lambda *args, **options: pytest.fail("trained in vain"))
    with pytest.raises(DataError, match="t10k: broken"):
        retrain(
            dataclasses.replace(parts, dataset=Broken(tiny_config.parent / "data")), subject(), folder, FullTraining(1)
        )


def test_weights_are_kept_even_if_the_score_fails(parts, folder, monkeypatch):
    def fails(*args, **options):
        raise EvaluationError("outputs are NaN")

    monkeypatch.setattr("nas.search.retraining.score", fails)
    with pytest.raises(EvaluationError, match="outputs are NaN"):
        retrain(parts, subject(), folder, FullTraining(1))
    load_weights(subject().model, folder.weights(CANDIDATE.id, "retrained"))


def test_equal_retrainings_give_equal_scores_and_the_latest_counts(parts, folder):
    first = retrain(parts, subject(), folder, FullTraining(2))
    assert retrain(parts, subject(), folder, FullTraining(2)) == first
    latest = retrain(parts, subject(), folder, FullTraining(1))
    record = folder.store.record(CANDIDATE.id)
    assert (record.retrained, record.retrained_conditions["epochs"]) == (latest, 1)


def test_a_run_with_a_live_teacher_stores_no_outputs_and_retrains_with_it(tiny_config, tmp_path):
    overrides = ["distillation={teacher: live}", "controller.n_generations=1", "augmentation={brightness: 0.2}"]
    run = nas.run_search(tiny_config, tmp_path / "runs" / "live", overrides=overrides)
    assert {record.state for record in run.records} <= {RecordState.COMPLETE, RecordState.INFEASIBLE}
    assert not list(tmp_path.rglob("teacher-logits-*"))
    record = next(record for record in run.records if record.is_complete)
    assert record.metrics["distillation_ratio"] > 0
    assert nas.retrain(run.path, record.id, 1).retrained


class Interrupted(BaseException):
    """Stands for a `kill -9`."""


def interrupt_after(epoch):
    def on_epoch(summary):
        if summary.epoch == epoch:
            raise Interrupted

    return on_epoch


def weights(folder, name="retrained"):
    return folder.weights(CANDIDATE.id, name).read_bytes()


HOW = (FullTraining(5), FullTraining(5, patience=2), FullTraining(3, n_seeds=2))


@pytest.mark.parametrize("how", HOW, ids=["whole", "patience", "seeds"])
def test_an_interrupted_training_goes_on_to_the_same_weights(parts, folder, tmp_path, how):
    augmented = dataclasses.replace(parts.setting, augmentation=Augmentation(scale=(0.8, 1.2), brightness=0.2))
    recipe = dataclasses.replace(parts.recipe, average_decay=0.9)
    parts = dataclasses.replace(parts, setting=augmented, recipe=recipe)
    with RunFolder.write(tmp_path / "whole") as whole:
        whole.store.add_batch([CANDIDATE], batch=0)
        expected = retrain(parts, subject(), whole, how)
        names = [how.weights_name(number) for number in range(how.n_seeds)]
        expected_weights = [weights(whole, name) for name in names]
    seen = []
    for epoch in (1, 2, 4):
        with pytest.raises(Interrupted):
            retrain(parts, subject(), folder, how, on_epoch=interrupt_after(epoch))
    scores = retrain(parts, subject(), folder, how, on_epoch=lambda summary: seen.append(summary.epoch))
    assert scores == expected
    assert [weights(folder, name) for name in names] == expected_weights
    assert min(seen, default=5) > 4  # what was done is not done again
    assert list((folder.path / "weights").glob("*.checkpoint")) == []


def test_a_finished_training_is_not_repeated_and_another_one_is(parts, folder):
    first = retrain(parts, subject(), folder, FullTraining(2))
    kept = weights(folder)
    again = retrain(parts, subject(), folder, FullTraining(2), on_epoch=lambda _: pytest.fail("trained again"))
    assert (again, weights(folder)) == (first, kept)
    retrain(parts, subject(), folder, FullTraining(3))
    assert weights(folder) != kept


def test_a_damaged_checkpoint_or_one_of_another_training_is_not_taken_up(parts, folder, caplog):
    expected = retrain(parts, subject(), folder, FullTraining(2))
    kept = weights(folder)
    folder.weights(CANDIDATE.id, "retrained").unlink()
    checkpoint = folder.weights(CANDIDATE.id, "retrained").with_suffix(".checkpoint")
    checkpoint.write_bytes(b"no zip")
    assert retrain(parts, subject(), folder, FullTraining(2)) == expected
    assert weights(folder) == kept
    assert "is damaged: the training starts over" in caplog.text
    with pytest.raises(Interrupted):
        retrain(parts, subject(), folder, FullTraining(4), on_epoch=interrupt_after(2))
    epochs = []
    retrain(parts, subject(), folder, FullTraining(3), on_epoch=lambda summary: epochs.append(summary.epoch))
    assert epochs == [1, 2, 3]
    assert "is of a training with other settings" in caplog.text


def test_several_seeds_give_mean_and_spread_and_keep_the_first_ones_weights(parts, folder, tmp_path):
    scores = retrain(parts, subject(), folder, FullTraining(2, n_seeds=3))
    record = folder.store.record(CANDIDATE.id)
    assert record.retrained == scores
    assert record.retrained_spread.keys() == scores.keys()
    assert record.retrained_conditions["n_seeds"] == 3
    assert "rounds" not in record.retrained_conditions
    by_seed = [o for o in folder.store.observations(CANDIDATE.id) if o.metric == "accuracy"][-1].conditions["rounds"]
    assert scores["accuracy"] == pytest.approx(sum(by_seed) / 3)
    assert record.retrained_spread["accuracy"] == pytest.approx(np.std(by_seed, ddof=1))
    assert len({weights(folder, name) for name in ("retrained", "retrained-2", "retrained-3")}) == 3
    with RunFolder.write(tmp_path / "one") as one:
        one.store.add_batch([CANDIDATE], batch=0)
        retrain(parts, subject(), one, FullTraining(2))
        first = load_file(one.weights(CANDIDATE.id, "retrained"))
    ours = load_file(folder.weights(CANDIDATE.id, "retrained"))
    assert all(torch.equal(ours[name], tensor) for name, tensor in first.items())


def test_it_starts_from_the_quick_weights_if_asked_to(parts, folder):
    quick = subject().model
    with torch.no_grad():
        for parameter in quick.parameters():
            parameter.add_(0.01)
    save_weights(quick, folder.weights(CANDIDATE.id, "quick"))
    slow = dataclasses.replace(parts, recipe=dataclasses.replace(parts.recipe, learning_rate=1e-9, weight_decay=0.0))
    retrain(slow, subject(), folder, FullTraining(1, start="quick"))
    found = load_file(folder.weights(CANDIDATE.id, "retrained"))
    for name, parameter in quick.named_parameters():
        assert torch.allclose(found[name], parameter, atol=1e-6)


def test_patience_holds_the_validation_split_out_and_takes_the_best_epoch(parts, folder, monkeypatch):
    scores, seen, models = iter([0.2, 0.5, 0.4, 0.3, 0.9]), [], []

    def scored(model, task, examples, *args, **options):
        if isinstance(examples, Examples):  # the validation split; the test split comes in parts
            models.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return {"accuracy": next(scores)}
        return {"accuracy": 0.5}

    monkeypatch.setattr("nas.search.retraining.score", scored)
    sizes = []
    original = ImageData.batch
    monkeypatch.setattr(ImageData, "batch", lambda self, *a: sizes.append(len(self)) or original(self, *a))
    retrain(parts, subject(), folder, FullTraining(5, patience=2), on_epoch=lambda summary: seen.append(summary.epoch))
    assert seen == [1, 2, 3, 4]
    assert set(sizes) == {40}  # of 40 + 20
    found = load_file(folder.weights(CANDIDATE.id, "retrained"))
    assert all(torch.equal(found[name], tensor) for name, tensor in models[1].items())


@pytest.mark.gpu
def test_an_interrupted_training_goes_on_on_a_gpu(parts, folder, tmp_path):
    setting = dataclasses.replace(parts.setting, device="cuda", resident_bytes=1 << 30)
    recipe = dataclasses.replace(parts.recipe, batch_size=4)  # steps enough to be captured as a graph
    parts = dataclasses.replace(parts, setting=setting, recipe=recipe)
    with RunFolder.write(tmp_path / "whole") as whole:
        whole.store.add_batch([CANDIDATE], batch=0)
        expected = retrain(parts, subject(), whole, FullTraining(5))
        expected_weights = load_file(whole.weights(CANDIDATE.id, "retrained"))
    with pytest.raises(Interrupted):
        retrain(parts, subject(), folder, FullTraining(5), on_epoch=interrupt_after(3))
    scores = retrain(parts, subject(), folder, FullTraining(5))
    found = load_file(folder.weights(CANDIDATE.id, "retrained"))
    for name, tensor in expected_weights.items():
        assert torch.allclose(found[name].float(), tensor.float(), atol=1e-2), name
    assert scores["accuracy"] == pytest.approx(expected["accuracy"], abs=0.11)  # of 20 images
