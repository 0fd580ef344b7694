"""What is made before the first candidate is trained: a search makes it, a dry run prices it."""

from dataclasses import dataclass

from nas.data.cache import ExamplesFile
from nas.pretrained.artifact import Artifact, in_order
from nas.pretrained.encoder import Encoder
from nas.pretrained.features import Features, StoredFeatures
from nas.pretrained.teacher import Teacher, TeacherOutputs, TeacherSpec
from nas.pretrained.views import Views
from nas.store.artifacts import ArtifactCache
from nas.training.distillation import Distillation
from nas.training.setting import TrainingSetting
from nas.values.recipes import TrainingRecipe
from search_spaces.base import PretrainableSpace, SearchSpace


@dataclass(frozen=True)
class Plan:
    """The artifacts that the trainings of a run share; `None` for each that it does without.

    Attributes:
        teacher: What candidates learn from.
        outputs: Its logits of the training split; `None` where it is asked about each batch.
        encoder: What candidates start from.
        features: Of the encoder, for stages that train the decoder alone.
        feature_outputs: The teacher's logits of the images whose features are stored.
    """

    teacher: Teacher | None = None
    outputs: TeacherOutputs | None = None
    encoder: Encoder | None = None
    features: Features | None = None
    feature_outputs: TeacherOutputs | None = None

    @classmethod
    def of(
        cls,
        cache: ArtifactCache,
        setting: TrainingSetting,
        *,
        space: SearchSpace,
        teacher: TeacherSpec | None,
        distillation: Distillation | None,
        pretraining: TrainingRecipe | None,
        n_views: int = 0,
    ) -> "Plan":
        """Return the plan of a run.

        Args:
            cache: Keeps the artifacts.
            setting: Of all trainings.
            space: The run's.
            teacher: What the teacher is; not used without `distillation`.
            distillation: How networks learn from it.
            pretraining: The recipe of the encoder; `None` where candidates start untrained.
            n_views: Of each training image whose features are stored; 0 for no stored features.
        """
        network = outputs = None
        if teacher is not None and distillation is not None:
            network = Teacher(cache, setting, teacher)
            if distillation.teacher == "cached":
                outputs = TeacherOutputs(cache, setting, network, _decoded_training_split(setting))
        if pretraining is None or not isinstance(space, PretrainableSpace):
            return cls(network, outputs)
        encoder = Encoder(cache, setting, space, pretraining, distillation, outputs or network)
        if not n_views:
            return cls(network, outputs, encoder)
        split, augmentation = _decoded_training_split(setting), setting.augmentation
        images = Views(cache, setting, split, augmentation, n_views) if augmentation else split
        feature_outputs = outputs
        if network is not None and (outputs is None or isinstance(images, Views)):
            feature_outputs = TeacherOutputs(cache, setting, network, images)
        return cls(network, outputs, encoder, Features(cache, setting, encoder, images), feature_outputs)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """All that is to be made, in order: the views, which features need, among them."""
        return in_order((self.teacher, self.outputs, self.encoder, self.features, self.feature_outputs))

    @property
    def live_teacher(self) -> Teacher | None:
        """The teacher, where trainings on images ask it about each batch."""
        return None if self.outputs else self.teacher

    def stored_features(self) -> StoredFeatures | None:
        """Return what stages that train the decoder alone read, once it is made."""
        return self.features.stored(self.feature_outputs) if self.features else None


def _decoded_training_split(setting: TrainingSetting) -> ExamplesFile:
    assert isinstance(setting.train, ExamplesFile)  # noqa: S101 - the reader refuses streamed images here
    return setting.train
