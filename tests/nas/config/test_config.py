import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from nas.config import RunConfig, differences, load_config
from nas.config.kinds import options_model
from nas.errors import ConfigurationError, InputError
from nas.pretrained.teacher_form import ChannelOrder, OutputForm, TeacherForm
from nas.registry import KINDS
from nas.tasks import TASKS
from nas.torch_tools import resolve_device
from nas.training.augmentation import Augmentation
from nas.training.distillation import Distillation
from nas.values.objectives import Constraint, Direction, Objective
from nas.values.recipes import TrainingRecipe
from search_spaces.references.reference_models import REFERENCE_MODELS

FACES = """\
name: faces
seed: 3
task:
  kind: segmentation
  include_background: true
data:
  kind: synthetic_faces
  image_size: 64
  n_train: 128
teacher:
  kind: unet
  recipe:
    batch_size: 16
search_space:
  kind: segmentation_cell
  n_cells: 2
training:
  device: cpu
  epochs: 2
  learning_rate: 1e-3
distillation:
  enabled: true
  loss: kl
  weight: 0.3
devices:
  cpu:
    kind: torch_cpu
    n_threads: 1
  phone:
    kind: fake
    base_ms: 1
metrics: {}
objectives:
  - metric: mean_iou
    direction: maximize
  - metric: latency_ms
    device: phone
constraints:
  - metric: n_params
    min: 20_000
    max: 400_000
  - metric: iou[left_eye]
    min: 0.1
reference_point:
  mean_iou: 0.0
controller:
  kind: nsga2
  population_size: 8
  n_generations: 3
execution:
  kind: process_pool
  n_workers: 2
references: [unet]
tensorboard: false
"""

GRID = """\
name: grid
search_space: {kind: integers, n_genes: 3}
metrics:
  cost: {function: "user_metrics:cost"}
objectives:
  - {metric: cost, direction: minimize}
controller: {kind: random}
"""

USER_CODE = """
from dataclasses import dataclass
from typing import ClassVar
from search_spaces.base import SearchSpace
from search_spaces.genotype import Gene, GeneKind

@dataclass(frozen=True)
class Space(SearchSpace):
    name: ClassVar[str] = "mine"
    n_genes: int = 2

    def __post_init__(self):
        if self.n_genes < 1:
            raise ValueError(f"n_genes must be at least 1, got {self.n_genes}")

    @property
    def genes(self):
        return tuple(Gene(f"g{i}", ("a", "b"), GeneKind.ORDINAL) for i in range(self.n_genes))

@dataclass(frozen=True)
class Odd(Space):
    clock: object = None
    source: object = 3

class Unwritable(Space):
    def __init__(self, clock: "type[object]"):
        pass

def cost(subject):
    return sum(subject.genotype.genes)

number = 3
"""


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "user_metrics.py").write_text(USER_CODE)
    (tmp_path / "user_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("user_metrics", "user_broken"):
        sys.modules.pop(name, None)


def changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} must occur once"
        text = text.replace(old, new)
    return text


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def faults_of(tmp_path: Path, text: str, overrides: Sequence[str] = (), trust_code: bool = False) -> list[str]:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, overrides, trust_code)
    return [fault.removeprefix(f"{tmp_path}/") for fault in caught.value.faults]


def test_a_whole_configuration(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FACES))
    assert (config.name, config.seed, config.tensorboard, config.references) == ("faces", 3, False, ("unet",))
    assert config.search_space.kind == "segmentation_cell"
    assert config.search_space.options["n_cells"] == 2
    assert config.data is not None
    assert config.data.instance.image_size == (64, 64)
    assert config.training is not None
    assert config.training.device == "cpu"
    assert config.training.recipe == TrainingRecipe(epochs=2, learning_rate=0.001)
    assert config.teacher is not None
    assert config.teacher.recipe == TrainingRecipe(epochs=10, batch_size=16)  # the teacher's own default
    assert config.distillation is not None
    assert config.distillation.method == Distillation(weight=0.3)
    assert config.devices["phone"].options["base_ms"] == 1.0
    assert config.objective_values() == (
        Objective("mean_iou", Direction.MAXIMIZE),
        Objective("latency_ms[phone]", Direction.MINIMIZE),
    )
    assert config.constraint_values() == (
        Constraint("n_params", 20_000, 400_000),
        Constraint("iou[left_eye]", 0.1, None),
    )
    assert config.reference_point == {"mean_iou": 0.0}


FLIPPED = ("distillation:\n", "augmentation: {flip: true, scale: [0.8, 1.5]}\ndistillation:\n")
PAIRS = "flip_pairs: [[left_eye, right_eye], [left_brow, right_brow]]"


def test_flips_need_the_pairs_of_left_and_right_which_are_proposed(tmp_path: Path) -> None:
    assert faults_of(tmp_path, changed(FACES, FLIPPED)) == [
        "x.yaml:21: augmentation.flip would teach that left_eye is right_eye: "
        f"write task: {{kind: segmentation, {PAIRS}}}, or leave flip out."
    ]
    text = changed(FACES, FLIPPED, ("include_background: true", PAIRS))
    config = load_config(write(tmp_path, text))
    assert config.augmentation == Augmentation(flip=True, scale=(0.8, 1.5))
    assert load_config(config.to_mapping()) == config
    unknown = changed(FACES, FLIPPED, ("include_background: true", PAIRS.replace("right_brow", "right_borw")))
    assert "x.yaml:5: task.flip_pairs must name classes of" in faults_of(tmp_path, unknown)[0]


def test_flips_are_checked_as_soon_as_the_classes_have_names(tmp_path: Path) -> None:
    for name in ("left_shoe", "right_shoe"):
        for index in range(2):
            path = tmp_path / "shoes" / "train" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
    data = {"kind": "image_folder", "root": str(tmp_path / "elsewhere"), "image_size": 4}
    mapping = {
        "name": "shoes",
        "data": data,
        "search_space": {"kind": "nasbench201"},
        "training": {},
        "augmentation": {"flip": True},
        "objectives": [{"metric": "accuracy"}],
        "controller": {"kind": "random"},
    }
    load_config(mapping)
    (tmp_path / "shoes").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=r"flip_pairs: \[\[left_shoe, right_shoe\]\]"):
        load_config(mapping)


def test_channel_wise_distillation_is_refused_for_whole_images() -> None:
    mapping = {
        "name": "a",
        "data": {"kind": "fashion_mnist"},
        "teacher": {"kind": "resnet"},
        "distillation": {"loss": "channel_wise"},
        "search_space": {"kind": "nasbench201"},
        "training": {},
        "objectives": [{"metric": "accuracy"}],
        "controller": {"kind": "random"},
    }
    with pytest.raises(ConfigurationError) as caught:
        load_config(mapping)
    assert len(caught.value.faults) == 1
    assert "distillation.loss: channel_wise is for segmentation; take kl or mse." in caught.value.faults[0]


def test_defaults() -> None:
    config = load_config(
        {
            "name": "a",
            "data": {"kind": "synthetic_faces"},
            "teacher": {"kind": "unet"},
            "search_space": {"kind": "segmentation_cell"},
            "training": {},
            "objectives": [{"metric": "mean_iou"}, {"metric": "latency_ms"}],
            "controller": {"kind": "nsga2"},
        }
    )
    assert config.task is not None
    assert config.task.kind == "segmentation"
    assert list(config.devices) == ["cpu"]
    assert config.devices["cpu"].kind == "torch_cpu"
    assert config.objectives[1].device == "cpu"
    assert config.metric_key("latency_ms", "cpu") == "latency_ms"
    assert config.distillation is not None
    assert config.distillation.enabled
    assert config.execution.kind == "serial"
    assert config.training is not None
    assert config.training.device == "auto"
    assert (config.constraints, config.references, config.tensorboard, config.seed) == ((), (), True, 0)


def test_a_search_without_data(user_code: None, tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GRID), trust_code=True)
    assert (config.data, config.task, config.training, config.teacher, config.distillation) == (None,) * 5
    assert config.devices == {}
    assert config.objective_values() == (Objective("cost", Direction.MINIMIZE),)


@pytest.mark.parametrize("text", [FACES, GRID])
def test_what_is_written_loads_to_an_equal_configuration(user_code: None, tmp_path: Path, text: str) -> None:
    config = load_config(write(tmp_path, text), trust_code=True)
    again = load_config(write(tmp_path, config.to_yaml()), trust_code=True)
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert load_config(config.to_mapping(), trust_code=True) == config


def test_given_weights_need_no_recipe(tmp_path: Path) -> None:
    text = changed(FACES, ("  recipe:\n    batch_size: 16\n", "  weights: t.safetensors\n"))
    config = load_config(write(tmp_path, text))
    assert config.teacher is not None
    assert config.teacher.weights == Path("t.safetensors")
    assert load_config(write(tmp_path, config.to_yaml())) == config


def test_an_onnx_teacher_is_given_and_not_trained(tmp_path: Path) -> None:
    given = "kind: onnx\n  path: gone.onnx\n  mean: [0.5, 0.5, 0.5]\n  std: [1, 1, 1]"
    text = FACES.replace("kind: unet\n  recipe:\n    batch_size: 16", given)
    config = load_config(write(tmp_path, text))
    assert config.teacher is not None
    assert config.teacher.given == Path("gone.onnx")
    assert load_config(write(tmp_path, config.to_yaml())) == config
    assert faults_of(tmp_path, text.replace("  std: [1, 1, 1]", "  std: [1, 1]\n  weights: a\n  recipe: {}")) == [
        "x.yaml:14: teacher.std must have a value for each of mean's 3, got 2.",
        "x.yaml:15: teacher.weights: an ONNX file has its own; leave them out.",
        "x.yaml:16: teacher.recipe: given weights need no training; leave one out.",
    ]


TEACHER = """\
import torch

def network(in_channels, n_classes, *, width: int = 4):
    return torch.nn.Conv2d(in_channels, n_classes, width)

def number(in_channels, n_classes):
    return 3
"""


def test_a_function_of_ones_own_makes_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_teacher.py").write_text(TEACHER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    form = "  mean: [0.1, 0.2, 0.3]\n  std: [1, 1, 1]\n  channel_order: bgr\n  output: one_logit"
    given = f"kind: own_teacher:network\n  width: 5\n  weights: t.safetensors\n{form}"
    text = FACES.replace("kind: unet\n  recipe:\n    batch_size: 16", given)
    config = load_config(write(tmp_path, text), trust_code=True)
    assert config.teacher is not None
    assert config.teacher.build(3, 2).weight.shape == (2, 3, 5, 5)
    assert config.teacher.form == TeacherForm((0.1, 0.2, 0.3), (1.0,) * 3, ChannelOrder.BGR, OutputForm.ONE_LOGIT)
    assert load_config(write(tmp_path, config.to_yaml()), trust_code=True) == config
    assert faults_of(tmp_path, text.replace("  channel_order: bgr", "  channel_order: gbr"), trust_code=True) == [
        "x.yaml:16: teacher.channel_order must be one of 'rgb', 'bgr', got 'gbr'. Did you mean 'rgb'?"
    ]
    assert faults_of(tmp_path, text.replace("  weights: t.safetensors\n", ""), trust_code=True)[0] == (
        "x.yaml:13: teacher.mean: a teacher that is trained here takes and gives what all networks do; leave it out."
    )
    assert faults_of(tmp_path, text.replace(":network\n  width: 5", ":number"), trust_code=True) == [
        "x.yaml:11: teacher.kind: 'own_teacher:number' must return a torch.nn.Module, it returns int."
    ]


def test_a_ray_of_its_own_and_a_device_exclude_each_other(tmp_path: Path) -> None:
    text = FACES[: FACES.index("execution:")] if "execution:" in FACES else FACES
    local = f"{text}execution: {{kind: ray, address: local}}\n"
    (fault,) = faults_of(tmp_path, local)
    assert "execution.address: local excludes the device" in fault
    assert "take kind: process_pool" in fault
    load_config(write(tmp_path, local.replace("local}", "auto}")))


@pytest.mark.parametrize("space", ["{kind: integers}", "{kind: segmentation_cell, encoder_width: [8, 16]}"])
def test_pretraining_needs_one_encoder(tmp_path: Path, space: str) -> None:
    text = FACES.replace("search_space:\n  kind: segmentation_cell\n  n_cells: 2\n", f"search_space: {space}\n")
    name = space.strip("{}").split(",")[0].removeprefix("kind: ")
    fault = f"pretraining: the networks of {name!r} share no encoder."
    assert any(line.endswith(fault) for line in faults_of(tmp_path, f"{text}pretraining: {{epochs: 1}}\n"))


def test_data_that_is_gone_does_not_stop_an_old_configuration(tmp_path: Path) -> None:
    text = changed(
        FACES,
        (
            "kind: synthetic_faces\n  image_size: 64\n  n_train: 128",
            "kind: image_mask_folder\n  root: gone\n  image_size: 64\n  class_names: [background, left_eye]",
        ),
    )
    config = load_config(write(tmp_path, text))
    assert config.data is not None
    assert config.data.options["root"] == Path("gone").absolute()
    assert config.data.options["class_names"] == ("background", "left_eye")
    assert load_config(write(tmp_path, config.to_yaml())) == config


@pytest.mark.parametrize(
    ("root", "stored"), [("mine", "{here}/mine"), ("$NAS_DATA_ROOT/x", "$NAS_DATA_ROOT/x"), ("~/x", "~/x")]
)
def test_the_root_of_the_data_means_the_same_folder_from_everywhere(tmp_path, monkeypatch, root, stored):
    monkeypatch.chdir(tmp_path)
    data = f"kind: image_mask_folder\n  root: {root}\n  image_size: 64\n  class_names: [background, left_eye]"
    text = changed(FACES, ("kind: synthetic_faces\n  image_size: 64\n  n_train: 128", data))
    mapping = load_config(write(tmp_path, text)).to_mapping()
    assert mapping["data"]["root"] == stored.format(here=tmp_path)
    assert load_config(mapping).to_mapping() == mapping


# Each change of FACES with the faults that it makes; the line is that of the changed key.
FAULTS = [
    ([("seed: 3", "seed: x")], ["x.yaml:2: seed must be an integer of at least 0, got 'x'."]),
    ([("seed: 3", "seed: -1")], ["x.yaml:2: seed must be an integer of at least 0, got -1."]),
    (
        [("seed: 3", f"seed: {10**22}")],
        [f"x.yaml:2: seed must be an integer of 0 .. 4294967295, got {10**22}."],
    ),
    (
        [("name: faces", "name: a/b")],
        ["x.yaml:1: name must be letters, digits, '.', '_' and '-', the first a letter or digit, got 'a/b'."],
    ),
    ([("name: faces\n", "")], ["x.yaml:1: missing key 'name'."]),
    ([("seed: 3", "sead: 3")], ["x.yaml:2: unknown key 'sead'. Did you mean 'seed'?"]),
    ([("controller:", "controler:")], ["x.yaml:46: unknown key 'controler'. Did you mean 'controller'?"]),
    ([("training:", "trainign:")], ["x.yaml:17: unknown key 'trainign'. Did you mean 'training'?"]),
    (
        [("kind: nsga2", "kind: nsgaa2")],
        ["x.yaml:47: controller.kind: unknown kind 'nsgaa2'. Did you mean 'nsga2'?"],
    ),
    ([("kind: nsga2", "kind: [a]")], ["x.yaml:47: controller.kind must be text, got ['a']."]),
    (
        [("  kind: nsga2\n", "")],
        [
            "x.yaml:46: controller: missing key 'kind'. "
            "Known: nsga2, nsga3, ppo, random, regularized_evolution, simulated_annealing, sms_emoa, surrogate_nsga2."
        ],
    ),
    ([("kind: nsga2", "knid: nsga2")], ["x.yaml:47: controller: unknown key 'knid'. Did you mean 'kind'?"]),
    (
        [("size: 8", "size: 7")],
        ["x.yaml:48: controller.population_size must be an even integer of at least 4, got 7."],
    ),
    (
        [("size: 8", "size: 8.0")],
        ["x.yaml:48: controller.population_size must be an even integer of at least 4, got 8.0."],
    ),
    (
        [("population_size", "populatoin_size")],
        ["x.yaml:48: controller: unknown key 'populatoin_size'. Did you mean 'population_size'?"],
    ),
    (
        [("  kind: nsga2\n  population_size: 8\n  n_generations: 3\n", "  nsga2\n")],
        ["x.yaml:46: controller must be a mapping such as {kind: nsga2}, got 'nsga2'."],
    ),
    (
        [("  kind: nsga2\n  population_size: 8\n  n_generations: 3\n", "")],
        ["x.yaml:46: controller must be a mapping such as {kind: nsga2}, got null."],
    ),
    (
        [("kind: process_pool", "kind: proces_pool")],
        ["x.yaml:51: execution.kind: unknown kind 'proces_pool'. Did you mean 'process_pool'?"],
    ),
    (
        [("n_workers: 2", "n_workers: 0")],
        ["x.yaml:52: execution.n_workers must be an integer of at least 1 or 'auto', got 0."],
    ),
    ([("n_cells: 2", "n_cells: 0")], ["x.yaml:16: search_space.n_cells must be an integer of at least 1, got 0."]),
    (
        [("image_size: 64", "image_size: big")],
        ["x.yaml:8: data.image_size must be an integer of at least 32, got 'big'."],
    ),
    (
        [("device: cpu", "device: gpu")],
        ["x.yaml:18: training.device must be auto, cpu, cuda or cuda:N, got 'gpu'."],
    ),
    ([("epochs: 2", "epochs: 0")], ["x.yaml:19: training.epochs must be an integer of at least 1, got 0."]),
    ([("epochs: 2", "epoch: 2")], ["x.yaml:19: training: unknown key 'epoch'. Did you mean 'epochs'?"]),
    (
        [("batch_size: 16", "batch_size: 0")],
        ["x.yaml:13: teacher.recipe.batch_size must be an integer of at least 1, got 0."],
    ),
    (
        [("batch_size: 16", "batchsize: 1")],
        ["x.yaml:13: teacher.recipe: unknown key 'batchsize'. Did you mean 'batch_size'?"],
    ),
    (
        [("  recipe:\n    batch_size: 16", "  width: 0")],
        ["x.yaml:12: teacher.width must be an integer of at least 1, got 0."],
    ),
    (
        [("  recipe:", "  weights: t\n  recipe:")],
        ["x.yaml:13: teacher.recipe: given weights need no training; leave one out."],
    ),
    (
        [("  kind: unet", "  kind: resnet"), ("[unet]", "[]")],
        [
            "x.yaml:11: teacher.kind: 'resnet' does classification; for segmentation take unet, "
            "deeplabv3_mobilenetv3, enet."
        ],
    ),
    (
        [("[unet]", "[unet, unet, resnet, une]")],
        [
            "x.yaml:53: references[1]: 'unet' is given twice.",
            "x.yaml:53: references[2]: 'resnet' does classification; for segmentation take unet, "
            "deeplabv3_mobilenetv3, enet.",
            "x.yaml:53: references[3]: unknown reference model 'une'. Did you mean 'unet'?",
        ],
    ),
    ([("enabled: true", "enabled: 1")], ["x.yaml:22: distillation.enabled must be true or false, got 1."]),
    (
        [("loss: kl", "loss: mes")],
        ["x.yaml:23: distillation.loss must be one of 'kl', 'mse', 'channel_wise', got 'mes'. Did you mean 'mse'?"],
    ),
    (
        [("weight: 0.3", "weight: -1")],
        ["x.yaml:24: distillation.weight must be a finite number of at least 0, got -1."],
    ),
    ([("  include_background: true", "  background: 3")], ["x.yaml:5: task.background must be text, got 3."]),
    (
        [("  include_background: true", "  include_background: false\n  background: sky")],
        [
            "x.yaml:6: task.background must be one of the classes ['background', 'skin', 'hair', 'left_eye', "
            "'right_eye', 'left_brow', 'right_brow', 'mouth'], got 'sky'."
        ],
    ),
    (
        [("  kind: segmentation\n  include_background: true", "  kind: segmentaton")],
        ["x.yaml:4: task.kind: unknown kind 'segmentaton'. Did you mean 'segmentation'?"],
    ),
    (
        [("  phone:", "  my phone:"), ("device: phone", "device: cpu")],
        ["x.yaml:29: devices: a name must be letters, digits, '_' and '-', got 'my phone'."],
    ),
    (
        [("kind: torch_cpu\n    n_threads: 1", "kind: torch_cpu\n    n_threads: 0")],
        ["x.yaml:28: devices.cpu.n_threads must be a positive integer, got 0."],
    ),
    (
        [("kind: fake", "kind: fak")],
        ["x.yaml:30: devices.phone.kind: unknown kind 'fak'. Did you mean 'fake'?"],
    ),
    (
        [("    kind: fake\n    base_ms: 1\n", "")],
        ["x.yaml:29: devices.phone must be a mapping such as {kind: torch_cpu}, got null."],
    ),
    (
        [("metric: mean_iou", "metric: meaniou"), ("  mean_iou: 0.0", "  latency_ms[phone]: 1")],
        ["x.yaml:34: objectives[0].metric: unknown metric 'meaniou'. Did you mean 'mean_iou'?"],
    ),
    (
        [("metric: latency_ms", "metric: latencyms")],
        ["x.yaml:36: objectives[1].metric: unknown metric 'latencyms'. Did you mean 'latency_ms'?"],
    ),
    (
        [("metric: latency_ms", "metric: latency_ms[phone]")],
        ["x.yaml:36: objectives[1].metric: unknown metric 'latency_ms[phone]'. Did you mean 'latency_ms'?"],
    ),
    (
        [("metric: iou[left_eye]", "metric: iou[lefteye]")],
        ["x.yaml:42: constraints[1].metric: unknown class 'lefteye'. Did you mean 'left_eye'?"],
    ),
    (
        [("metric: iou[left_eye]", "metric: uio[left_eye]")],
        ["x.yaml:42: constraints[1].metric: unknown metric 'uio[left_eye]'. Did you mean 'iou[left_eye]'?"],
    ),
    (
        [("metric: iou[left_eye]", "metric: accuracy")],
        ["x.yaml:42: constraints[1].metric: segmentation gives no accuracy. Did you mean 'mean_accuracy'?"],
    ),
    (
        [("direction: maximize", "direction: maximise")],
        [
            "x.yaml:35: objectives[0].direction must be one of 'maximize', 'minimize', got 'maximise'. "
            "Did you mean 'maximize'?"
        ],
    ),
    (
        [("direction: maximize", "device: cpu")],
        ["x.yaml:35: objectives[0].device: mean_iou is not measured on a device; leave it out."],
    ),
    (
        [("    device: phone\n", "")],
        ["x.yaml:36: objectives[1]: missing key 'device': latency_ms is measured on cpu, phone."],
    ),
    (
        [("    device: phone\n", "    device: phon\n")],
        ["x.yaml:37: objectives[1].device: unknown device 'phon'. Did you mean 'phone'?"],
    ),
    (
        [
            ("kind: fake\n    base_ms: 1", "kind: onnxruntime"),
            ("metric: latency_ms", "metric: peak_memory_bytes"),
        ],
        [
            "x.yaml:36: objectives[1].device: 'phone' (onnxruntime) does not measure peak_memory_bytes; "
            "those that do: cpu."
        ],
    ),
    (
        [
            ("metric: n_params", "metric: peak_memory_bytes"),
            ("kind: fake\n    base_ms: 1", "kind: onnxruntime"),
            ("    kind: torch_cpu\n    n_threads: 1", "    kind: onnxruntime"),
        ],
        [
            "x.yaml:37: constraints[0]: none of the devices measures peak_memory_bytes; "
            "kinds that do: torch_cpu, torch_cuda, fake."
        ],
    ),
    (
        [
            ("metric: latency_ms\n    device: phone", "metric: peak_memory_bytes\n    device: phone"),
            ("kind: fake\n    base_ms: 1", "kind: onnxruntime"),
            ("    kind: torch_cpu\n    n_threads: 1", "    kind: onnxruntime"),
        ],
        [
            "x.yaml:35: objectives[1].device: 'phone' (onnxruntime) does not measure peak_memory_bytes; "
            "kinds that do: torch_cpu, torch_cuda, fake."
        ],
    ),
    (
        [("metric: latency_ms\n    device: phone", "metric: mean_iou")],
        ["x.yaml:36: objectives[1]: mean_iou is an objective already."],
    ),
    (
        [("metric: latency_ms\n", "mtric: latency_ms\n")],
        ["x.yaml:36: objectives[1]: unknown key 'mtric'. Did you mean 'metric'?"],
    ),
    (
        [("  - metric: latency_ms\n    device: phone\n", "  - latency_ms\n")],
        ["x.yaml:36: objectives[1] must be a mapping, got 'latency_ms'."],
    ),
    ([("    min: 20_000\n    max: 400_000\n", "")], ["x.yaml:39: constraints[0]: give min, max or both."]),
    (
        [("min: 20_000", "min: 500_000")],
        ["x.yaml:40: constraints[0].min must be at most max, got 500000.0 and 400000.0."],
    ),
    ([("max: 400_000", "max: .inf")], ["x.yaml:41: constraints[0].max must be a finite number, got inf."]),
    (
        [("  mean_iou: 0.0", "  mean_io: 0.0")],
        ["x.yaml:45: reference_point: 'mean_io' is no objective. Did you mean 'mean_iou'?"],
    ),
    (
        [("  mean_iou: 0.0", "  latency_ms: 0.0")],
        ["x.yaml:45: reference_point: 'latency_ms' is no objective. Did you mean 'latency_ms[phone]'?"],
    ),
    (
        [("  mean_iou: 0.0", "  mean_iou: low")],
        ["x.yaml:45: reference_point.mean_iou must be a finite number or null, got 'low'."],
    ),
    (
        [("tensorboard: false", "tensorboard: off!")],
        ["x.yaml:54: tensorboard must be true or false, got 'off!'."],
    ),
    ([("[unet]", "unet")], ["x.yaml:53: references must be a list of texts, got 'unet'."]),
    (
        [("metrics: {}", "metrics: {n_params: {function: a:b}}")],
        [
            "x.yaml:32: metrics.n_params.function names Python code ('a:b'); pass --trust-code "
            "(trust_code=True in Python) if you trust this file.",
            "x.yaml:32: metrics.n_params: 'n_params' is the name of a built-in metric; choose another.",
        ],
    ),
    (
        [("metrics: {}", "metrics: {m: {functoin: a:b}}")],
        ["x.yaml:32: metrics.m: unknown key 'functoin'. Did you mean 'function'?"],
    ),
    (
        [("metrics: {}", "metrics: {m: {function: ab}}")],
        ["x.yaml:32: metrics.m.function must be written as package.module:name, got 'ab'."],
    ),
]


@pytest.mark.parametrize(("changes", "faults"), FAULTS, ids=lambda value: str(value)[:60])
def test_faults(tmp_path: Path, changes: list[tuple[str, str]], faults: list[str]) -> None:
    assert faults_of(tmp_path, changed(FACES, *changes)) == faults


def test_one_slip_is_one_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path, FACES, ["devices=3"]) == [
        "--set devices=3: devices must be a mapping such as {cpu: {kind: torch_cpu}}, got 3."
    ]
    assert faults_of(tmp_path, FACES, ["objectives=x"]) == ["--set objectives=x: objectives must be a list, got 'x'."]
    assert faults_of(tmp_path, FACES, ["reference_point.mean_iou=1" + "0" * 400]) == [
        f"--set reference_point.mean_iou=1{'0' * 400}: reference_point.mean_iou must be a finite "
        "number or null, got 100000000000000000...0000000000000000000."
    ]


def test_all_faults_come_at_once_by_line(tmp_path: Path) -> None:
    text = changed(
        FACES,
        ("seed: 3", "seed: x"),
        ("kind: synthetic_faces", "kind: synthetic_face"),
        ("n_cells: 2", "n_cell: 2"),
        ("metric: latency_ms", "metric: latency"),
        ("size: 8", "size: 7"),
    )
    overrides = ["controller.n_generatoins=20", "training.epochs=0"]
    assert faults_of(tmp_path, text, overrides) == [
        "x.yaml:2: seed must be an integer of at least 0, got 'x'.",
        "x.yaml:7: data.kind: unknown kind 'synthetic_face'. Did you mean 'synthetic_faces'?",
        "x.yaml:16: search_space: unknown key 'n_cell'. Did you mean 'n_cells'?",
        "x.yaml:36: objectives[1].metric: unknown metric 'latency'. Did you mean 'latency_ms'?",
        "x.yaml:48: controller.population_size must be an even integer of at least 4, got 7.",
        "--set controller.n_generatoins=20: controller: unknown key 'n_generatoins'. Did you mean 'n_generations'?",
        "--set training.epochs=0: training.epochs must be an integer of at least 1, got 0.",
    ]


def _without(section: str) -> str:
    data = yaml.safe_load(FACES)
    del data[section]
    return yaml.safe_dump(data, sort_keys=False)


def test_metrics_need_their_sections(tmp_path: Path) -> None:
    faults = [fault.partition(": ")[2] for fault in faults_of(tmp_path, _without("training"))]
    assert faults == [
        "objectives[0].metric: mean_iou needs a training section.",
        "constraints[1].metric: iou[left_eye] needs a training section.",
    ]
    faults = [fault.partition(": ")[2] for fault in faults_of(tmp_path, _without("data"))]
    assert faults == [
        "teacher needs a data section.",
        "distillation needs a data section.",
        "objectives[0].metric: mean_iou needs a data section to train on.",
        "objectives[1].metric: latency_ms needs a data section for the sizes of input and output.",
        "constraints[0].metric: n_params needs a data section for the sizes of input and output.",
        "constraints[1].metric: iou[left_eye] needs a data section to train on.",
        "references needs a data section.",
    ]
    faults = [fault.partition(": ")[2] for fault in faults_of(tmp_path, _without("teacher"))]
    assert faults == ["distillation needs a teacher section to learn from."]
    assert load_config(write(tmp_path, _without("teacher")), ["distillation.enabled=false"]).teacher is None


def test_a_space_without_networks_has_no_costs(tmp_path: Path) -> None:
    text = changed(GRID, ("metric: cost, direction: minimize", "metric: n_params"))
    assert faults_of(tmp_path, text)[-1] == (
        "x.yaml:6: objectives[0].metric: n_params needs networks, and search space 'integers' builds none."
    )


def test_a_task_that_the_data_is_not_made_for(tmp_path: Path) -> None:
    data = {"kind": "fashion_mnist"}
    text = yaml.safe_dump(yaml.safe_load(FACES) | {"data": data}, sort_keys=False)
    assert (
        "task.kind: the targets of the data are made for classification, not for segmentation."
        in (faults_of(tmp_path, text)[0])
    )


def test_several_lists_that_are_none(tmp_path: Path) -> None:
    text = changed(GRID, ("  - {metric: cost, direction: minimize}\n", "  cost\n"))
    assert faults_of(tmp_path, text)[1:] == ["x.yaml:5: objectives must be a list, got 'cost'."]
    text = changed(GRID, ("objectives:\n  - {metric: cost, direction: minimize}\n", "objectives: []\n"))
    assert faults_of(tmp_path, text)[1:] == ["x.yaml:5: objectives: give one or more."]
    text = changed(GRID, ("objectives:\n  - {metric: cost, direction: minimize}\n", "objectives:\n"))
    assert faults_of(tmp_path, text)[1:] == ["x.yaml:5: objectives must be a list, got null."]


def test_only_the_user_knows_the_direction_of_a_function(user_code: None, tmp_path: Path) -> None:
    text = changed(GRID, (", direction: minimize", ""))
    assert faults_of(tmp_path, text, trust_code=True) == [
        "x.yaml:6: objectives[0]: missing key 'direction': say maximize or minimize for cost."
    ]


def test_untrusted_code_is_not_imported(user_code: None, tmp_path: Path) -> None:
    text = changed(GRID, ("kind: integers", 'kind: "user_metrics:Space"'))
    advice = "pass --trust-code (trust_code=True in Python) if you trust this file."
    assert faults_of(tmp_path, text) == [
        f"x.yaml:2: search_space.kind names Python code ('user_metrics:Space'); {advice}",
        f"x.yaml:4: metrics.cost.function names Python code ('user_metrics:cost'); {advice}",
    ]
    assert "user_metrics" not in sys.modules


def test_trusted_code(user_code: None, tmp_path: Path) -> None:
    text = changed(GRID, ("kind: integers", 'kind: "user_metrics:Space"'))
    config = load_config(write(tmp_path, text), trust_code=True)
    assert [gene.name for gene in config.search_space.instance.genes] == ["g0", "g1", "g2"]
    assert load_config(write(tmp_path, config.to_yaml()), trust_code=True) == config
    assert faults_of(tmp_path, text.replace("n_genes: 3", "n_genes: 0"), trust_code=True) == [
        "x.yaml:2: search_space.n_genes must be at least 1, got 0."
    ]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "gone_module:Space",
            "cannot import 'gone_module:Space': ModuleNotFoundError: No module named 'gone_module'.",
        ),
        (
            "user_metrics:Gone",
            "cannot import 'user_metrics:Gone': ImportError: module 'user_metrics' has no 'Gone'.",
        ),
        ("user_broken:Space", "cannot import 'user_broken:Space': ZeroDivisionError: division by zero."),
        (
            "user_metrics:cost",
            "'user_metrics:cost' must be a class derived from search_spaces.base.SearchSpace.",
        ),
        ("user_metrics:Unwritable", "Unwritable.clock: a configuration cannot give type[object]."),
    ],
)
def test_faulty_code(user_code: None, tmp_path: Path, name: str, fault: str) -> None:
    text = changed(GRID, ("kind: integers, n_genes: 3", f'kind: "{name}"'))
    assert faults_of(tmp_path, text, trust_code=True) == [f"x.yaml:2: search_space.kind: {fault}"]


def test_a_metric_must_be_callable(user_code: None, tmp_path: Path) -> None:
    text = changed(GRID, ("user_metrics:cost", "user_metrics:number"))
    assert faults_of(tmp_path, text, trust_code=True) == [
        "x.yaml:4: metrics.cost.function: 'user_metrics:number' must be a function."
    ]


# The names in these sections are the user's own.
_FREE_NAMES = {"cpu", "phone", "mean_iou"}


def _keys_with_lines(text: str) -> list[tuple[str, int]]:
    keys = []
    for line, content in enumerate(text.splitlines(), 1):
        key = content.strip().removeprefix("- ").partition(":")[0]
        if ":" in content and key not in _FREE_NAMES:
            keys.append((key, line))
    return keys


@pytest.mark.parametrize(("key", "line"), _keys_with_lines(FACES))
def test_every_misspelled_key_is_named_with_the_right_one(tmp_path: Path, key: str, line: int) -> None:
    lines = FACES.splitlines()
    wrong = key[:-1] + key[-1] * 2
    lines[line - 1] = lines[line - 1].replace(f"{key}:", f"{wrong}:", 1)
    faults = faults_of(tmp_path, "\n".join(lines))
    expected = f"unknown key {wrong!r}. Did you mean {key!r}?"
    assert any(fault.startswith(f"x.yaml:{line}: ") and fault.endswith(expected) for fault in faults)


@pytest.mark.parametrize("value", ["x y", "[1]", "{a: 1}", "null", "true", "-7.5"])
@pytest.mark.parametrize(
    ("key", "line"),
    [(key, line) for key, line in _keys_with_lines(FACES) if not FACES.splitlines()[line - 1].endswith(":")],
)
def test_no_phrase_of_pydantic_reaches_the_user(tmp_path: Path, key: str, line: int, value: str) -> None:
    lines = FACES.splitlines()
    head = lines[line - 1].partition(f"{key}:")[0]
    lines[line - 1] = f"{head}{key}: {value}"
    try:
        load_config(write(tmp_path, "\n".join(lines)))
    except ConfigurationError as error:
        assert not any(phrase in str(error) for phrase in ("Input should", "type=", "Value error", "valid "))


def test_differences(tmp_path: Path) -> None:
    old = load_config(write(tmp_path, FACES))
    new = load_config(write(tmp_path, _without("constraints")), ["controller.n_generations=20", "reference_point={}"])
    assert differences(old, old) == []
    assert [str(difference) for difference in differences(old, new)] == [
        "constraints[0].metric: n_params -> (absent)",
        "constraints[0].min: 20000.0 -> (absent)",
        "constraints[0].max: 400000.0 -> (absent)",
        "constraints[1].metric: iou[left_eye] -> (absent)",
        "constraints[1].min: 0.1 -> (absent)",
        "reference_point.mean_iou: 0.0 -> (absent)",
        "controller.n_generations: 3 -> 20",
        "constraints: (absent) -> []",
        "reference_point: (absent) -> {}",
    ]


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [resolve_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(InputError, match=r"training\.device 'cuda' is not here"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(InputError, match="'cuda:2' is not here"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(("section", "kind"), [(s, kind) for s, kinds in KINDS.items() for kind in kinds.classes])
def test_every_kind_says_its_options(section: str, kind: str) -> None:
    kinds = KINDS[section]
    assert issubclass(kinds.classes[kind], kinds.base)
    fields: dict[str, Any] = options_model(kinds.classes[kind], kinds.supplied).model_fields
    assert not {"kind", "weights", "recipe"} & set(fields)


def test_every_reference_model_serves_a_task() -> None:
    assert {model.is_dense for model in REFERENCE_MODELS.values()} <= {task.is_dense for task in TASKS.values()}


def test_a_configuration_cannot_be_changed() -> None:
    assert RunConfig.model_config["frozen"]
