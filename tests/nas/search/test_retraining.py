"""Retraining: on all but the test split, from scratch, as in the search but longer."""

import dataclasses

import numpy as np
import pytest
import torch

import nas
from nas.data import FashionMnist
from nas.data.base import Split
from nas.errors import DataError, EvaluationError
from nas.evaluation import ModelSignature, Subject
from nas.search.retraining import RetrainingParts, retrain
from nas.store.run_folder import RunFolder
from nas.tasks import Classification
from nas.torch_tools import load_weights
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
    scores = retrain(parts, subject(), folder, epochs=3, on_epoch=epochs.append)
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
    retrain(dataclasses.replace(parts, teacher_logits=logits, distillation=method), subject(), folder, epochs=7)
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

    retrain(parts, subject(), folder, epochs=1)
    broken = dataclasses.replace(parts, dataset=Broken(tiny_config.parent / "data", n_validation=20))
    with pytest.raises(DataError, match="t10k: broken"):
        retrain(broken, subject(), folder, epochs=2)
    logged = [(candidate, purpose) for candidate, purpose, _ in folder.store.test_readings()]
    assert logged == [(CANDIDATE.id, "retraining, 1 epochs"), (CANDIDATE.id, "retraining, 2 epochs")]


def test_a_broken_test_split_costs_no_training(parts, folder, tiny_config, monkeypatch):
    class Broken(FashionMnist):
        def load(self, split):
            raise DataError(["t10k: broken"])

    monkeypatch.setattr("nas.search.retraining.train", lambda *args, **options: pytest.fail("trained in vain"))
    with pytest.raises(DataError, match="t10k: broken"):
        retrain(dataclasses.replace(parts, dataset=Broken(tiny_config.parent / "data")), subject(), folder, epochs=1)


def test_weights_are_kept_even_if_the_score_fails(parts, folder, monkeypatch):
    def fails(*args, **options):
        raise EvaluationError("outputs are NaN")

    monkeypatch.setattr("nas.search.retraining.score", fails)
    with pytest.raises(EvaluationError, match="outputs are NaN"):
        retrain(parts, subject(), folder, epochs=1)
    load_weights(subject().model, folder.weights(CANDIDATE.id, "retrained"))


def test_equal_retrainings_give_equal_scores_and_the_latest_counts(parts, folder):
    first = retrain(parts, subject(), folder, epochs=2)
    assert retrain(parts, subject(), folder, epochs=2) == first
    latest = retrain(parts, subject(), folder, epochs=1)
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
