"""The files in configs/ load as they stand, and the one that needs real data runs on a cut of it."""

import json
import os
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

import nas
from nas.config import load_config
from nas.config.schema import configuration_schema
from nas.config.yaml_source import YamlSource

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
CAMVID = next(path for path in CONFIGS if path.stem == "camvid")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads_and_is_named_as_its_file(path):
    assert load_config(path).name == path.stem


def test_the_schema_for_editors_is_current():
    """`nas schema > configs/schema.json` writes it anew."""
    stored = (CONFIGS[0].parent / "schema.json").read_text(encoding="utf-8")
    assert json.loads(stored) == configuration_schema()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_names_the_schema_and_follows_it(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    data = YamlSource.read(path).data
    schema = jsonschema.Draft202012Validator(configuration_schema())
    schema.validate(data)
    assert not schema.is_valid(data | {"sead": 1})
    assert not schema.is_valid(data | {"controller": data["controller"] | {"kind": "nsga9"}})


def test_every_key_is_described():
    definitions = configuration_schema()["$defs"]
    undescribed = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, field in definition.get("properties", {}).items()
        if key != "kind" and "description" not in field
    ]
    assert undescribed == []
    assert definitions["TrainingConfig"]["properties"]["epochs"]["minimum"] == 1
    assert definitions["Nsga2"]["properties"]["population_size"]["description"].startswith("Parents, and candidates")


def masks(split):
    folder = Path(os.environ["NAS_DATA_ROOT"]) / "camvid" / split / "masks"
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif("NAS_DATA_ROOT" not in os.environ, reason="NAS_DATA_ROOT is not set")
def test_class_weights_of_camvid_are_median_frequencies():
    n_pixels, n_where_present = np.zeros(12), np.zeros(12)
    for mask in masks("train"):
        counts = np.bincount(mask.ravel(), minlength=12)
        n_pixels += counts
        n_where_present += (counts > 0) * mask.size
    frequency = (n_pixels / n_where_present)[:11]
    weights = load_config(CAMVID).task.options["class_weights"]
    np.testing.assert_allclose(weights, np.median(frequency) / frequency, atol=6e-4)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif("NAS_DATA_ROOT" not in os.environ, reason="NAS_DATA_ROOT is not set")
def test_a_cut_of_camvid_runs(tmp_path):
    cut = [
        "data.image_size=[24, 32]", "teacher.recipe.epochs=1", "teacher.width=4", "pretraining.epochs=1",
        "training.stages.0.epochs=1", "training.stages.1.epochs=1", "training.n_views=1", "training.n_threads_alone=1",
        "controller.population_size=4", "controller.n_generations=1", "tensorboard=false", "execution.n_threads=1",
        "devices.cpu={kind: fake}", "references=[enet]",
    ]  # fmt: skip
    run = nas.run_search(CAMVID, tmp_path / "run", overrides=cut)
    candidates = [record for record in run.records if record.role == "candidate"]
    assert len(candidates) == 4
    assert {record.state for record in candidates} == {"complete"}
    assert all(record.metrics["n_params"] <= 400_000 for record in candidates)
    assert all({"mean_iou@1", "mean_iou", "iou[road]"} <= record.metrics.keys() for record in candidates)
    retrained = nas.retrain(run.path, run.references[0].id, epochs=1)
    assert (retrained.candidate.description, retrained.retrained_conditions["n_images"]) == ("enet", 233)
    assert 0 < retrained.retrained["mean_iou"] < 1
