"""Runs the code of docs/walkthrough.md as it stands there."""

import re
import sys
from pathlib import Path

import nas

WALKTHROUGH = Path(__file__).parent.parent / "docs" / "walkthrough.md"


def code_blocks(language):
    text = WALKTHROUGH.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_walkthrough_runs_as_written(tmp_path, monkeypatch):
    (python,), (configuration,) = code_blocks("python"), code_blocks("yaml")
    (tmp_path / "my_task.py").write_text(python, encoding="utf-8")
    (tmp_path / "my_task.yaml").write_text(configuration, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
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
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
