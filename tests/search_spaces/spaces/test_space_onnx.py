"""The spaces' networks export with a dynamic batch and compute the same in onnxruntime."""

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from latency.graph.onnx_writer import write_onnx, write_onnx_to_measure
from search_spaces import Mobile, NasBench201, SegmentationCell

SPACES = {
    "nasbench201": (NasBench201(width=4, cells_per_stage=1), (1, 28, 28)),
    "mobile": (Mobile(resolutions=(24, 28)), (1, 28, 28)),
    "segmentation_cell": (
        SegmentationCell(n_cells=2, n_branches=2, decoder_widths=(8, 16), encoder_width=8),
        (3, 32, 32),
    ),
}


def exports(kind, genotypes, folder):
    space, shape = SPACES[kind]
    for genotype in genotypes:
        model = space.build(genotype, in_channels=shape[0], n_classes=5, seed=0).eval()
        assert write_onnx(model, shape, folder / "model.onnx").max_difference <= 1e-4


@pytest.mark.parametrize("kind", SPACES)
def test_a_sampled_network_exports(kind, tmp_path):
    exports(kind, [SPACES[kind][0].sample(np.random.default_rng(0))], tmp_path)


@pytest.mark.parametrize("kind", SPACES)
def test_a_network_of_nothing_exports(kind, tmp_path):
    space, _ = SPACES[kind]
    exports(kind, [space.genotype([0] * len(space.genes))], tmp_path)


@pytest.mark.parametrize("kind", SPACES)
def test_every_operator_of_a_sampled_network_has_a_translation(kind, tmp_path):
    space, shape = SPACES[kind]
    rng = np.random.default_rng(2)
    for _ in range(10):
        model = space.build(space.sample(rng), in_channels=shape[0], n_classes=5, seed=0).eval()
        assert write_onnx_to_measure(model, shape, tmp_path / "model.onnx").untranslated == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPACES)
def test_twenty_sampled_networks_export(kind, tmp_path):
    rng = np.random.default_rng(1)
    exports(kind, [SPACES[kind][0].sample(rng) for _ in range(20)], tmp_path)


# The default segmentation space. The exporter that users get takes 4 s of one core for each of its networks; torch's
# older one takes 0.3 s, so that the fast test can take enough networks to meet every operation.

DEFAULT = SegmentationCell()
N_PARTS, PART = 20, 50


def sampled(part, n):
    rng = np.random.default_rng([7, part])
    return [DEFAULT.sample(rng) for _ in range(n)]


def after_a_step(genotype):
    """The genotype's network after a training step, with weights and statistics that no initialisation gives."""
    model = DEFAULT.build(genotype, in_channels=3, n_classes=5, seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    targets = torch.randint(5, (4, 32, 32), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = F.cross_entropy(model(images), targets)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    return model.eval()


def largest_difference_by_the_older_exporter(model):
    """Between torch and onnxruntime, relative to the scale of the output, for batches of 1 and 3."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age, and of sizes taken for constants, which they are
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
        names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
        torch.onnx.export(model, (torch.zeros(2, 3, 32, 32),), file, dynamo=False, **names)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    differences = []
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = model(images).numpy()
        (actual,) = session.run(None, {"image": images.numpy()})
        assert actual.shape == expected.shape
        differences.append(np.abs(actual - expected).max() / max(1.0, np.abs(expected).max()))
    return max(differences)


@pytest.mark.parametrize("n", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_networks_of_the_default_space_train_a_step_and_compute_the_same_as_onnx(n):
    for genotype in sampled(part=0, n=n):
        assert largest_difference_by_the_older_exporter(after_a_step(genotype)) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("part", range(N_PARTS))
def test_a_thousand_networks_of_the_default_space_train_a_step_and_export(part, tmp_path):
    for genotype in sampled(part, PART):
        model = after_a_step(genotype)
        assert write_onnx(model, (3, 32, 32), tmp_path / "model.onnx").max_difference <= 1e-4
