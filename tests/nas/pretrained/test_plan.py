"""The plan of shared artifacts: what belongs to it, in which order, and under which cache keys."""

import dataclasses

import numpy as np
import pytest

from nas.data.cache import ExamplesFile
from nas.data.normalization import Normalization
from nas.data.stream import StreamedExamples
from nas.pretrained.artifact import in_order
from nas.pretrained.features import Features
from nas.pretrained.plan import Plan
from nas.pretrained.teacher import Teacher, TeacherSpec
from nas.pretrained.views import Views
from nas.tasks import Segmentation
from nas.training.augmentation import Augmentation
from nas.training.distillation import Distillation
from nas.training.setting import TrainingSetting
from nas.values.recipes import TrainingRecipe
from search_spaces import Integers, SegmentationCell

SPACE = SegmentationCell(n_cells=1, n_branches=1)
RECIPE = TrainingRecipe(epochs=3)
CACHED, LIVE = Distillation(), Distillation(teacher="live")
SPEC = TeacherSpec("unet", {"width": 4}, TrainingRecipe(epochs=2))
VARIED = {"augmentation": Augmentation(flip=True)}


@pytest.fixture
def setting(tmp_path):
    """A setting whose every part is fixed, so that cache keys are."""
    split = ExamplesFile(tmp_path / "images-0.npy", tmp_path / "targets-0.npy")
    np.save(split.images, np.zeros((2, 3, 32, 32), np.uint8))
    np.save(split.targets, np.zeros((2, 32, 32), np.uint8))
    return TrainingSetting(
        data_fingerprint="data",
        train=split,
        validation=split,
        normalization=Normalization((0.5,) * 3, (0.25,) * 3),
        task=Segmentation(("a", "b"), None),
        task_options={"flip_pairs": []},
        in_channels=3,
        n_classes=2,
        seed=3,
        device="cpu",
        n_threads=2,
        **VARIED,
    )


@pytest.fixture
def given(tmp_path):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    return dataclasses.replace(SPEC, weights=weights)


def plan(cache, setting, spec=SPEC, distillation=CACHED, space=SPACE, pretraining=RECIPE, n_views=2):
    return Plan.of(
        cache,
        setting,
        space=space,
        teacher=spec,
        distillation=distillation,
        pretraining=pretraining,
        n_views=n_views,
    )


def test_keys_are_those_of_earlier_releases(setting, cache, given):
    """Read off the code before there was a plan: other keys would train everybody's teachers and encoders again."""
    assert Teacher(cache, setting, SPEC).path.name == "teacher-967c35d623bd3cb3.safetensors"
    whole = plan(cache, setting, given)
    assert [[path.name for path in artifact.paths] for artifact in whole.artifacts] == [
        ["mine.safetensors"],
        ["teacher-logits-d7503d8106055a79.npy"],
        ["encoder-f9464484b3cb602e.safetensors"],
        ["view-images-e5a730885143149c.npy", "view-targets-ef078d4f43f0853f.npy"],
        ["features-57f6e017f481bc29.npy"],
        ["teacher-logits-41b6ebb8ab35f369.npy"],
    ]
    assert plan(cache, setting, given, LIVE).encoder.path.name == "encoder-c9da97d6f0987c6f.safetensors"
    assert plan(cache, setting, None, None).encoder.path.name == "encoder-4ad5881a0ed097f2.safetensors"
    assert Features(cache, setting, whole.encoder, setting.train).path.name == "features-828daf99349cbdfa.npy"


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True), None])
@pytest.mark.parametrize("distillation", [CACHED, LIVE])
def test_each_artifact_follows_those_that_it_is_made_from(cache, setting, augmentation, distillation):
    whole = plan(cache, dataclasses.replace(setting, augmentation=augmentation), distillation=distillation)
    assert set(whole.encoder.needs) <= {whole.outputs, whole.teacher}
    for position, artifact in enumerate(whole.artifacts):
        assert set(artifact.needs) <= set(whole.artifacts[:position])
        assert artifact not in whole.artifacts[:position]
    assert in_order((None, whole.encoder, whole.encoder)) == (*in_order(whole.encoder.needs), whole.encoder)


def test_features_and_the_teachers_logits_are_of_the_same_views(cache, setting):
    views, features, outputs = plan(cache, setting).artifacts[-3:]
    assert isinstance(views, Views)
    assert features.images is outputs.images is views


@pytest.mark.parametrize(
    ("change", "options", "names"),
    [
        (VARIED, {}, ["teacher", "its outputs", "encoder", "views", "features", "for views"]),
        (VARIED, {"distillation": LIVE}, ["teacher", "encoder", "views", "features", "for views"]),
        ({"augmentation": None}, {}, ["teacher", "its outputs", "encoder", "features"]),
        ({"augmentation": None}, {"distillation": LIVE}, ["teacher", "encoder", "features", "its outputs"]),
        (VARIED, {"n_views": 0}, ["teacher", "its outputs", "encoder"]),
        (VARIED, {"distillation": None}, ["encoder", "views", "features"]),
        (VARIED, {"spec": None, "n_views": 0}, ["encoder"]),
        (VARIED, {"pretraining": None}, ["teacher", "its outputs"]),
        (VARIED, {"space": Integers(2, 3)}, ["teacher", "its outputs"]),
        (VARIED, {"distillation": None, "pretraining": None}, []),
    ],
)
def test_a_plan_holds_what_the_run_uses(cache, setting, change, options, names):
    assert [a.name for a in plan(cache, dataclasses.replace(setting, **change), **options).artifacts] == names


def test_streamed_images_leave_a_live_teacher_and_the_encoder(cache, setting):
    streamed = dataclasses.replace(setting, train=StreamedExamples(None, 1))
    found = plan(cache, streamed, distillation=LIVE, n_views=0)
    assert [artifact.name for artifact in found.artifacts] == ["teacher", "encoder"]
    assert found.live_teacher is found.encoder.teacher is found.teacher


def test_an_artifact_is_not_made_while_one_that_it_needs_is_missing(cache, setting):
    """Its file may be there: a teacher that was removed is trained again before what was computed from it is used."""
    whole = plan(cache, setting)
    assert not any(artifact.is_made for artifact in whole.artifacts)
    cache.root.mkdir()
    whole.teacher.path.write_bytes(b"weights")
    whole.outputs.path.touch()
    assert [artifact.is_made for artifact in whole.artifacts] == [True, True, False, False, False, False]
    whole.teacher.path.unlink()
    assert not whole.outputs.is_made
