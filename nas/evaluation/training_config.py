"""The options of a candidate's training; the configuration's section `training`."""

import dataclasses
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Unit
from pydantic import Field
from pydantic_core import to_jsonable_python

from nas.evaluation.stopping_rules import DropRule, StoppingRule, SuccessiveHalving
from nas.values.recipes import StageRecipe, TrainingRecipe

_DEVICE = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", json_schema_extra={"must_be": "auto, cpu, cuda or cuda:N"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingRecipe):
    """How and where candidates are trained. What the recipe says holds for stages that don't say otherwise.

    Attributes:
        device: `auto` (CUDA where it is there), `cpu`, `cuda` or `cuda:N`.
        n_threads_alone: CPU threads of trainings that have the machine to themselves: teacher, pretraining,
            retraining. A candidate's are `execution.n_threads`.
        precision: Of convolutions and the like: `auto` takes bfloat16 on a GPU that computes in it, float16 on one that
            has matrix units for that alone, float32 elsewhere. Weights, losses and scores are float32 always.
        resident_gib: How much of a GPU's memory each process that trains may keep filled with examples: images of all
            its stages, stored features, the teacher's outputs and the validation split together, in the order in which
            they are needed; what does not fit stays memory-mapped on the host. Networks and activations come on top.
        n_loader_workers: Processes that decode the training images from their files, batch by batch and in every epoch
            anew, for each process that trains: for data sets that fit neither memory nor disk when decoded. 0: images
            are decoded once, to disk.
        n_views: Of each training image, varied by the augmentation, whose encoder features are stored for stages that
            train the decoder alone.
        drop_rule: Which candidates are stopped between two stages, by peers of like cost; `None` for none.
        successive_halving: The same, by the share that goes on; at most one of the two is given.
        stages: What candidates go through; one that trains everything by the recipe where none are given.
    """

    device: Annotated[str, _DEVICE] = "auto"
    n_threads_alone: Annotated[int, Ge(1), Le(1024)] = 1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    resident_gib: Annotated[float, Ge(0), Le(1e6), Unit("GiB")] = 4.0
    n_loader_workers: Annotated[int, Ge(0), Le(1024)] = 0
    n_views: Annotated[int, Ge(1), Le(1000)] = 4
    drop_rule: DropRule | None = None
    successive_halving: SuccessiveHalving | None = None
    stages: Annotated[tuple[StageRecipe, ...], Field(min_length=1)] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            object.__setattr__(self, "stages", (StageRecipe(**dataclasses.asdict(self.recipe)),))

    @property
    def recipe(self) -> TrainingRecipe:
        """The section's own recipe: of stages that don't say otherwise, and of retrainings."""
        return TrainingRecipe(**{field.name: getattr(self, field.name) for field in dataclasses.fields(TrainingRecipe)})

    @property
    def stopping_rule(self) -> StoppingRule | None:
        """What ends candidates between two stages; `None` if nothing does."""
        return self.drop_rule or self.successive_halving

    def to_mapping(self) -> dict[str, Any]:
        """Return the section as the file writes it: stages, which have epochs of their own, or epochs."""
        mapping: dict[str, Any] = to_jsonable_python(self)
        is_recipe_alone = self.stages == (StageRecipe(**dataclasses.asdict(self.recipe)),)
        del mapping["stages" if is_recipe_alone else "epochs"]
        return {name: value for name, value in mapping.items() if value is not None}
