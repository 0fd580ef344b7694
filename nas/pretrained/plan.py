"""What is made before the first candidate is trained: a search makes it, a dry run prices it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from nas.data.cache import ExamplesFile
from nas.files import file_hash
from nas.pretrained.artifact import Artifact, TrainingListener, in_order
from nas.pretrained.encoder import Encoder, PretrainedSpace
from nas.pretrained.features import Features
from nas.pretrained.teacher import Teacher, TeacherOutputs, TeacherSpec
from nas.pretrained.views import Views
from nas.store.artifacts import ArtifactCache
from nas.store.run_folder import RunFolder
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
        features: Of the encoder, for stages that train the decoder alone; with the teacher's logits of their images.
    """

    teacher: Teacher | None = None
    outputs: TeacherOutputs | None = None
    encoder: Encoder | None = None
    features: Features | None = None

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
        image_outputs = outputs
        if network is not None and (outputs is None or isinstance(images, Views)):
            image_outputs = TeacherOutputs(cache, setting, network, images)
        return cls(network, outputs, encoder, Features(cache, setting, encoder, images, image_outputs))

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """All that is to be made, in order: the views, which features need, among them."""
        read_beside = self.features.teacher_outputs if self.features else None
        return in_order((self.teacher, self.outputs, self.encoder, self.features, read_beside))

    @property
    def live_teacher(self) -> Teacher | None:
        """The teacher, where trainings on images ask it about each batch."""
        return None if self.outputs else self.teacher

    def start(self, space: SearchSpace) -> SearchSpace:
        """Return the space whose networks start from the encoder, if there is one."""
        return PretrainedSpace(self.encoder.space, self.encoder.path) if self.encoder else space


def make(wanted: Iterable[Artifact | None], folder: RunFolder, listener: TrainingListener) -> None:
    """Make what is missing of the wanted artifacts, and check that all is what a run was started with.

    Raises:
        InputError: If teacher or encoder are others now.
        EvaluationError: If a training diverges.
    """
    for artifact in in_order(wanted):
        artifact.make(listener)
        if isinstance(artifact, Teacher):
            report = artifact.report(listener)
            folder.check_fact("teacher_weights", artifact.fingerprint)
            folder.store.set_fact("teacher", {"kind": artifact.spec.kind, **asdict(report)})
        elif isinstance(artifact, Encoder):
            folder.check_fact("encoder", file_hash(artifact.path))


def _decoded_training_split(setting: TrainingSetting) -> ExamplesFile:
    assert isinstance(setting.train, ExamplesFile)  # noqa: S101 - the reader refuses streamed images here
    return setting.train
