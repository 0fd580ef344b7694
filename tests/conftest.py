import gzip

import numpy as np
import pytest
import torch

import nas
from nas.data.base import Split
from nas.data.cache import cache_examples
from nas.data.normalization import Normalization
from nas.store.artifacts import ArtifactCache
from nas.training.setting import TrainingSetting

TINY = """\
name: tiny
seed: 1
data: {{kind: fashion_mnist, root: "{root}", n_train: 32, n_validation: 20}}
teacher: {{kind: resnet, depth: 8, width: 4, recipe: {{epochs: 1, batch_size: 16}}}}
search_space: {{kind: nasbench201, width: 4, cells_per_stage: 1}}
training: {{device: cpu, epochs: 1, batch_size: 16}}
devices: {{phone: {{kind: fake, spread: 0.1}}}}
objectives:
  - {{metric: accuracy, direction: maximize}}
  - {{metric: latency_ms, device: phone, direction: minimize}}
constraints: [{{metric: latency_ms, device: phone, max: 0.9}}]
controller: {{kind: nsga2, population_size: 4, n_generations: 3}}
tensorboard: false
"""


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors are faster on one thread, and results do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "artifacts")


@pytest.fixture
def make_setting(cache):
    """Return a function that makes a CPU's setting from a data set and a task."""

    def make(dataset, task):
        train, validation = (cache_examples(cache, dataset, split) for split in (Split.TRAIN, Split.VALIDATION))
        return TrainingSetting(
            data_fingerprint=dataset.fingerprint(),
            train=train,
            validation=validation,
            normalization=Normalization.of(train.load().images),
            task=task,
            task_options={},
            in_channels=train.load().images.shape[1],
            n_classes=len(dataset.class_names),
            seed=0,
            device="cpu",
            n_threads=1,
        )

    return make


def write_tiny_data(root, seed=0):
    """Write the four files of Fashion-MNIST with images whose brightness tells their class."""
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, n in (("train", 60), ("t10k", 20)):
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        images = (rng.integers(0, 30, (n, 28, 28)) + labels[:, None, None] * 22).astype(np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            sizes = b"".join(side.to_bytes(4, "big") for side in values.shape)
            content = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
            (root / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """The YAML file of a run of two seconds: real data, teacher, distillation, a device without a clock."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_data(folder / "data")
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(root=folder / "data"))
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_config):
    """The folder of that run, finished; not to be written to."""
    return nas.run_search(tiny_config, tiny_config.parent / "runs" / "tiny").path


def pytest_collection_modifyitems(items):
    """Skip what needs a CUDA device where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
