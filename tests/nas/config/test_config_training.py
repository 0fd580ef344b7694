"""The training section: stages, what they leave out, and when candidates may be dropped between them."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from nas.assembly.training import thresholds
from nas.config import load_config
from nas.errors import ConfigurationError
from nas.evaluation.stopping_rules import DropRule, SuccessiveHalving
from nas.tasks import Segmentation
from nas.torch_tools import resolve_precision
from nas.values.recipes import StageRecipe, TrainingRecipe

STAGED = """\
name: staged
data: {kind: synthetic_faces, image_size: 32, n_train: 16, n_validation: 8}
search_space: {kind: segmentation_cell, n_cells: 2}
pretraining: {epochs: 1}
training:
  learning_rate: 0.02
  average_decay: 0.9
  n_views: 2
  drop_rule: {quantile: 0.5}
  stages:
    - {epochs: 3, train: decoder, auxiliary_weight: 0.2}
    - {learning_rate: 0.005, epochs: 1}
objectives: [{metric: mean_iou, direction: maximize}, {metric: n_params, direction: minimize}]
controller: {kind: nsga2, population_size: 4, n_generations: 3}
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_config(path)

    return load_text


def test_stages_take_from_the_section_what_they_leave_out(load):
    training = load(STAGED).training
    assert training.stages == (
        StageRecipe(3, learning_rate=0.02, average_decay=0.9, auxiliary_weight=0.2, train="decoder"),
        StageRecipe(1, learning_rate=0.005, average_decay=0.9),
    )
    assert (training.drop_rule, training.n_views) == (DropRule(quantile=0.5), 2)
    assert training.recipe == TrainingRecipe(learning_rate=0.02, average_decay=0.9)


def test_a_training_without_stages_is_one_by_the_recipe(load):
    text = STAGED[: STAGED.index("  drop_rule")] + "  epochs: 4\n" + STAGED[STAGED.index("objectives") :]
    training = load(text).training
    assert training.stages == (StageRecipe(4, learning_rate=0.02, average_decay=0.9),)
    assert training.drop_rule is None


def test_successive_halving_stops_candidates_as_the_drop_rule_does(load):
    training = load(STAGED.replace("drop_rule: {quantile: 0.5}", "successive_halving: {reduction: 3}")).training
    assert training.stopping_rule == SuccessiveHalving(reduction=3.0)


def test_a_staged_configuration_survives_its_own_yaml(load):
    config = load(STAGED)
    assert load(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pretraining: {epochs: 1}\n", "", r"training.stages\[0\].train: decoder needs a pretraining section"),
        ("  n_views: 2", "  n_views: 0", "training.n_views must be an integer of at least 1, got 0"),
        ("  n_views: 2", "  epochs: 2", "training.epochs: each of the stages has its own; leave one out"),
        (
            "train: decoder",
            "train: encoder",
            r"training.stages\[0\].train must be one of 'decoder', 'all', got 'encoder'",
        ),
        (
            "{quantile: 0.5}",
            "{quantile: 2}",
            "training.drop_rule.quantile must be a number of more than 0 and less than 1",
        ),
        ("    - {learning_rate: 0.005, epochs: 1}\n", "", "training.drop_rule: candidates are stopped between stages"),
        ("train: decoder", "trains: decoder", r"training.stages\[0\]: unknown key 'trains'. Did you mean 'train'\?"),
        (
            "epochs: 1}\nobjectives",
            "epochs: 1}\n    - {epochs: 1, train: decoder}\nobjectives",
            r"training.stages\[2\].train must be all after stages\[1\], which changes the encoder .*, got 'decoder'",
        ),
        ("  n_views: 2", "  resident_gib: -1", "training.resident_gib must be a finite number of at least 0, got -1"),
        ("  n_views: 2", "  successive_halving: {}", "training.successive_halving: there is a drop_rule already"),
        (
            "  n_views: 2",
            "  precision: half",
            "training.precision must be one of 'auto', 'float32', 'bfloat16', 'float16', got 'half'",
        ),
        ("n_views", "n_view", "training: unknown key 'n_view'. Did you mean 'n_views'?"),
    ],
)
def test_what_cannot_be_is_refused(load, old, new, message):
    with pytest.raises(ConfigurationError, match=message):
        load(STAGED.replace(old, new))


@pytest.mark.parametrize(
    ("precision", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_a_cpu_computes_in_float32_unless_told(precision, expected):
    assert resolve_precision(precision, "cpu") is expected


SETTING = SimpleNamespace(task=Segmentation(("background", "left_eye", "mouth")))


@pytest.mark.parametrize(
    ("objectives", "score"),
    [
        ("{metric: n_params}, {metric: 'f1[left_eye]'}, {metric: mean_f1}", "f1[left_eye]"),
        ("{metric: mean_f1}, {metric: mean_iou}, {metric: n_params}", "mean_f1"),
        ("{metric: latency_ms, device: phone}, {metric: n_params}", "mean_iou"),
    ],
)
def test_candidates_are_compared_by_the_score_that_the_search_maximises(load, objectives, score):
    start = STAGED.index("objectives:")
    text = f"{STAGED[:start]}devices: {{phone: {{kind: fake}}}}\nobjectives: [{objectives}]\n"
    text += "constraints: [{metric: mean_iou, min: 0.1}]\n" + STAGED[STAGED.index("controller:") :]
    assert thresholds(load(text), SETTING, {"n_params"}).keywords["interim_metrics"] == (f"{score}@1",)


def test_candidates_are_compared_by_what_is_known_when_trainings_start(load):
    """A cost that only a later stage gives would leave a rule without effect."""
    text = STAGED.replace(
        "objectives: [", "devices: {phone: {kind: fake}}\nobjectives: [{metric: latency_ms, device: phone}, "
    )
    for measured, expected in (
        ({"n_params", "n_macs", "latency_ms"}, ("latency_ms", "n_params")),
        ({"n_params", "n_macs"}, ("n_params",)),
        ({"n_macs"}, ("n_params",)),
    ):
        rule = thresholds(load(text), SETTING, measured)
        assert rule.keywords == {"cost_metrics": expected, "interim_metrics": ("mean_iou@1",)}


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), torch.float32), ((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_a_gpu_computes_in_what_it_has_units_for(monkeypatch, capability, expected):
    """All of these emulate bfloat16, and torch says by default that they have it."""
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(asked.append(device)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    def is_supported(including_emulation=True):
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert resolve_precision("auto", "cuda:1") is expected
    assert asked == ["cuda:1"]
