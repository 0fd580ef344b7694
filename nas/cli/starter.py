"""The configuration that `nas init` writes: commented, and ready to run."""

import json
import re
from collections.abc import Mapping
from typing import Any

from nas.data.inspection import Inspection

_N_PASSES = 4000  # images that a candidate sees in its quick training, about
_MAX_EPOCHS = 20
_LONGEST_SIDE = {True: 128, False: 64}  # of segmentation, of classification
_STEP = {True: 16, False: 8}


def starter_config(found: Inspection, name: str, device: str, source: str) -> str:
    """Return the text of a YAML file that searches the data.

    Args:
        found: The data.
        name: Of the run.
        device: The kind of the device that latency is measured on.
        source: What was looked at, for the heading.
    """
    epochs = min(max(round(_N_PASSES / found.n_train), 1), _MAX_EPOCHS)
    batch_size = 64 if found.n_train > _N_PASSES else max(2, min(16, found.n_train // 4 * 2))
    recipe = f"batch_size: {batch_size}"
    sections = _segmentation(epochs, recipe) if found.is_dense else _classification(epochs, recipe)
    score = "mean_iou" if found.is_dense else "accuracy"
    task = "segmentation" if found.is_dense else "classification"
    return f"""\
# Written by `nas init` for {_comment(source)}: {found.n_train} images to learn from, {len(found.class_names)} classes.
# It runs as it stands: `nas validate FILE --data` looks at all the data, `nas search FILE --dry-run` says how long a
# search takes, `nas search FILE` searches. The README lists all sections; what is left out here has a default.
name: {_name(name)}
seed: 0

data:
{_data(found)}
task: {{kind: {task}}}

{sections}
# Where latency is measured: the device that the network is for, if it is this machine's.
devices:
  target: {{kind: {device}}}

# What is traded for what. Costs can be bounded as well: constraints: [{{metric: n_params, max: 400_000}}]
objectives:
  - {{metric: {score}, direction: maximize}}
  - {{metric: latency_ms, device: target, direction: minimize}}
  - {{metric: n_params, direction: minimize}}

# population_size x n_generations candidates: a first look. Raise n_generations later with
# `nas search FILE --resume --set controller.n_generations=10`.
controller: {{kind: nsga2, population_size: 8, n_generations: 3}}
execution: {{kind: serial}}
"""


def _data(found: Inspection) -> str:
    lines = [f"kind: {found.kind}"]
    for key, value in found.options.items():
        remark = f"  # {found.remarks[key]}" if key in found.remarks else ""
        lines.append(f"{key}: {_value(value)}{remark}")
    if "class_names" not in found.options:
        shown = ", ".join(found.class_names[:8]) + (", ..." if len(found.class_names) > 8 else "")
        lines.append(f"# classes: {_comment(shown)}")
    height, width = _image_size(found)
    smaller = " smaller is quicker, larger is more exact" if (height, width) != found.size else ""
    lines.append(
        f"image_size: [{height}, {width}]  # the images have {found.size[0]} x {found.size[1]} or so;{smaller}".rstrip(
            ";"
        )
    )
    if "test_fraction" in found.options:
        lines.append("# There is no test split: test_fraction sets a part aside, which no search ever sees.")
    return "".join(f"  {line}\n" for line in lines)


def _image_size(found: Inspection) -> tuple[int, int]:
    """Return the images' size, so much smaller that its longer side is no longer than a first look needs."""
    longest, step = _LONGEST_SIDE[found.is_dense], _STEP[found.is_dense]
    factor = min(1.0, longest / max(found.size))
    height, width = (max(2 * step, round(side * factor / step) * step) for side in found.size)
    return height, width


def _segmentation(epochs: int, recipe: str) -> str:
    return f"""\
# Trained once, kept beside the runs: candidates learn from it as well as from the masks.
teacher:
  kind: unet
  width: 12
  recipe: {{epochs: {2 * epochs}, {recipe}, learning_rate: 0.01}}

search_space: {{kind: segmentation_cell, n_cells: 2, n_branches: 2}}
pretraining: {{epochs: {2 * epochs}, {recipe}, learning_rate: 0.02}}
training: {{epochs: {epochs}, {recipe}, learning_rate: 0.02}}
distillation: {{weight: 1.0, temperature: 4.0}}
"""


def _classification(epochs: int, recipe: str) -> str:
    return f"""\
# Trained once, kept beside the runs: candidates learn from it as well as from the labels.
teacher:
  kind: resnet
  depth: 14
  width: 16
  recipe: {{epochs: {2 * epochs}, {recipe}, learning_rate: 0.01}}

search_space: {{kind: nasbench201, width: 8, cells_per_stage: 1}}
training: {{epochs: {epochs}, {recipe}, learning_rate: 0.02}}
distillation: {{weight: 1.0, temperature: 4.0}}
"""


def _value(value: Any) -> str:
    """Return a value as YAML: JSON's texts, lists and numbers are YAML too."""
    assert not isinstance(value, Mapping)  # noqa: S101 - no option of data is one
    return json.dumps(value, ensure_ascii=False)


def _name(text: str) -> str:
    """Return a run's name, which is also its folder's, from a file's; quoted, as `no` and `010` are names too."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")
    return json.dumps(kept or "mine")


def _comment(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
