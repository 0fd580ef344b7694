"""The part that all candidates of a run share, trained once: every candidate starts from it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from nas.pretrained.artifact import Artifact, Timer, TrainingListener, train_shared
from nas.pretrained.teacher import Teacher, TeacherOutputs
from nas.torch_tools import load_part, save_weights
from nas.training.distillation import Distillation
from nas.training.scoring import score
from nas.values.recipes import TrainingRecipe
from search_spaces.base import PretrainableSpace
from search_spaces.genotype import Genotype


class _AsWithin:
    """A property or method of `PretrainedSpace` that is the one of the space within."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: "PretrainedSpace", owner: type) -> Any:
        return getattr(instance.within, self._name)


class PretrainedSpace(PretrainableSpace):
    """A space whose networks start from pretrained encoders; everything else is as in the space itself.

    Attributes:
        within: The space.
        weights: A safetensors file with the encoder's weights.
    """

    name: ClassVar[Any] = _AsWithin()
    genes: Any = _AsWithin()
    cell_graph: Any = _AsWithin()
    options: Any = _AsWithin()
    n_genotypes: Any = _AsWithin()
    shares_encoder: Any = _AsWithin()
    canonical: Any = _AsWithin()
    describe: Any = _AsWithin()
    draw: Any = _AsWithin()
    check: Any = _AsWithin()
    genotype: Any = _AsWithin()
    nearest: Any = _AsWithin()
    validate: Any = _AsWithin()
    sample: Any = _AsWithin()
    enumerate: Any = _AsWithin()
    fingerprint: Any = _AsWithin()
    build_for_pretraining: Any = _AsWithin()

    def __init__(self, space: PretrainableSpace, weights: Path) -> None:
        self.within = space
        self.weights = weights

    def build(self, genotype: Genotype, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return the space's network with the weights of its encoder replaced."""
        model = self.within.build(genotype, in_channels=in_channels, n_classes=n_classes, seed=seed)
        load_part(model.get_submodule("encoder"), self.weights)
        return model


@dataclass(frozen=True, eq=False)
class Encoder(Artifact):
    """The weights of the encoder that candidates share, trained under a light decoder.

    The file's metadata hold, as JSON under `scores`, what both together reached on the validation split.

    Attributes:
        space: Gives the network.
        recipe: How to train it.
        distillation: How it learns from the teacher; `None` for not at all.
        teacher: What it learns from: stored logits of the training split, or the network itself, asked about each
            batch.
    """

    name = "encoder"
    kinds = ("encoder",)
    suffix = ".safetensors"
    space: PretrainableSpace
    recipe: TrainingRecipe
    distillation: Distillation | None = None
    teacher: Teacher | TeacherOutputs | None = None

    @property
    def needs(self) -> tuple[Artifact, ...]:
        """The teacher or its outputs."""
        return (self.teacher,) if self.teacher else ()

    @property
    def depends_on(self) -> dict[str, Any]:
        """The setting, the space, the recipe and the teacher."""
        teacher = self.teacher
        return {
            **self.setting.depends_on,
            "space": [self.space.name, self.space.options],
            "recipe": asdict(self.recipe),
            "distillation": asdict(self.distillation) if self.distillation else None,
            "teacher": teacher.outputs_depend_on if isinstance(teacher, Teacher) else teacher and teacher.path.name,
        }

    def write(self, paths: tuple[Path, ...], listener: TrainingListener) -> None:
        """Train it."""
        model, teacher, setting = self.untrained(self.setting.seed), self.teacher, self.setting
        train_shared(
            self,
            model,
            self.recipe,
            listener,
            what=f"the encoder that all candidates start from ({self.recipe.length})",
            distillation=self.distillation,
            teacher_logits=teacher.path if isinstance(teacher, TeacherOutputs) else None,
            teacher=teacher.load() if isinstance(teacher, Teacher) else None,
        )
        scores = score(model, setting.task, setting.validation.load(), setting.normalization, device=setting.device)
        save_weights(model.get_submodule("encoder"), paths[0], {"scores": json.dumps(scores)})

    def seconds(self, timer: Timer) -> float:
        """Return what training it costs."""
        return timer.training_s(lambda: self.untrained(seed=0), self.recipe, self.distillation)

    def untrained(self, seed: int) -> nn.Module:
        """Return the network that is trained."""
        setting = self.setting
        return self.space.build_for_pretraining(in_channels=setting.in_channels, n_classes=setting.n_classes, seed=seed)
