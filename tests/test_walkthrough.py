"""Runs the code of docs/walkthrough.md and docs/own_teacher.md as it stands there."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nas
from nas.data.base import Split
from nas.data.synthetic_faces import SyntheticFaces

DOCS = Path(__file__).parent.parent / "docs"


def code_blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write files into the working folder, from which their modules can be imported while the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def write(**files):
        for name, content in files.items():
            module, _, suffix = name.rpartition("_")
            Path(f"{module}.{suffix}").write_text(content, encoding="utf-8")
            modules.append(module)
            sys.modules.pop(module, None)

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def test_the_walkthrough_runs_as_written(written):
    (python,), (configuration,) = code_blocks("walkthrough.md", "python"), code_blocks("walkthrough.md", "yaml")
    written(my_task_py=python, my_task_yaml=configuration)
    run = nas.run_search("my_task.yaml", trust_code=True)
    states = run.counts()
    assert sum(states.values()) == 10
    assert states.keys() == {"complete", "infeasible"}
    assert all(record.metrics["n_activations"] <= 3 for record in run.front)
    assert max(record.metrics["accuracy"] for record in run.front) > 0.8
    assert [(o.metric, str(o.direction)) for o in run.objectives[1:]] == [("brier", "minimize"), ("n_macs", "minimize")]
    assert all(0 < record.metrics["brier"] < 0.5 for record in run.front if record.metrics["accuracy"] > 0.8)
    assert run.reference_point["brier"] == 0.5
    infeasible = [record for record in run.records if record.violations]
    assert all("accuracy" not in record.metrics for record in infeasible)


@pytest.mark.trains
def test_a_teacher_of_ones_own_scores_as_its_own_code_says(written):
    (network, training), (configuration,) = (
        code_blocks("own_teacher.md", "python"),
        code_blocks("own_teacher.md", "yaml"),
    )
    written(my_network_py=network, train_it_py=training, my_teacher_yaml=configuration)
    train_it = importlib.import_module("train_it")
    train_it.main()
    run = nas.run_search("my_teacher.yaml", trust_code=True)
    assert run.counts() == {"complete": 3}
    model = train_it.MyNetwork(3, 8, width=24).eval()
    model.load_state_dict(load_file("mine.safetensors"))
    examples = SyntheticFaces(image_size=32, n_train=256, n_validation=64).load(Split.VALIDATION)
    with torch.inference_mode():
        found = model(train_it.as_it_likes_them(examples.images))["out"].argmax(dim=1)
    ious = [
        float(((found == c) & (examples.targets == c)).sum() / ((found == c) | (examples.targets == c)).sum())
        for c in range(8)
    ]
    assert run.teacher["kind"] == "my_network:MyTeacher"
    assert run.teacher["n_params"] == sum(p.numel() for p in model.parameters())
    assert run.teacher["scores"]["mean_iou"] == pytest.approx(sum(ious) / 8, abs=1e-3)
    assert run.teacher["scores"]["mean_iou"] > 2 / 8 / 8  # far from chance: the images came as it likes them
