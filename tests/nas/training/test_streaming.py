"""Images decoded while a training runs: the same batches, hence the same weights, as from images decoded before."""

import gc
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import nas
from nas.config import load_config
from nas.data import ImageFolder, SyntheticFaces
from nas.data.base import Examples, Split
from nas.data.normalization import Normalization
from nas.data.stream import StreamedExamples
from nas.errors import ConfigurationError, DataError
from nas.tasks import Classification
from nas.training.augmentation import Augmentation
from nas.training.batches import ImageData
from nas.training.engine import train
from nas.training.streaming import StreamData
from nas.values.recipes import TrainingRecipe
from nas.values.records import RecordState

pytestmark = pytest.mark.trains

TASK = Classification(("cat", "dog"))
VARIED = Augmentation(flip=True, scale=(0.8, 1.2), brightness=0.3)
YAML = """\
name: streamed
data: {{kind: image_folder, root: "{root}", image_size: 8, validation_fraction: 0.25}}
search_space: {{kind: nasbench201, width: 4, cells_per_stage: 1}}
training: {{device: cpu, epochs: 1, batch_size: 4}}
augmentation: {{shift: 0.1}}
objectives: [{{metric: accuracy, direction: maximize}}, {{metric: n_params, direction: minimize}}]
controller: {{kind: random, n_candidates: 2, batch_size: 2}}
tensorboard: false
"""


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("test", 2)):
        for name, light in (("cat", 0), ("dog", 100)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(n):
                pixels = rng.integers(light, light + 150, (10, 12, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "data"


@pytest.fixture
def dataset(root):
    return ImageFolder(root, image_size=8, validation_fraction=0.25)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 2))


def trained(data):
    model = network()
    train(model, TrainingRecipe(epochs=3, batch_size=5, average_decay=0.9), task=TASK, data=data, seed=1)
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def both(dataset, n_workers):
    """Streamed and resident data of training and validation split."""
    splits = (Split.TRAIN, Split.VALIDATION)
    resident = [dataset.load(split) for split in splits]
    normalization = Normalization.of_parts(part.images for part in resident)
    source = StreamedExamples(dataset, n_workers, splits)
    return (
        StreamData(source, normalization, augmentation=VARIED, task=TASK),
        ImageData(resident, normalization, augmentation=VARIED, task=TASK),
    )


def check_equal(dataset, n_workers):
    streamed, resident = both(dataset, n_workers)
    assert len(streamed) == len(resident) == 16
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).view(4, 4)
    for epoch in (1, 2):
        generators = [torch.Generator().manual_seed(epoch) for _ in range(2)]
        pairs = zip(
            streamed.batches(order, epoch, generators[0]), resident.batches(order, epoch, generators[1]), strict=True
        )
        for found, expected in pairs:
            assert torch.equal(found.inputs, expected.inputs)
            assert torch.equal(found.targets, expected.targets)
    assert torch.equal(trained(streamed), trained(resident))


def test_batches_and_trainings_are_those_of_resident_images(dataset):
    check_equal(dataset, n_workers=0)


@pytest.mark.slow
def test_processes_decode_the_same_and_may_be_left_in_the_middle(dataset):
    check_equal(dataset, n_workers=2)
    streamed, resident = both(dataset, 1)
    order = torch.arange(16).view(8, 2)
    next(streamed.batches(order, 1, torch.Generator()))
    found = next(streamed.batches(order.flip(0), 1, torch.Generator().manual_seed(0)))
    expected = next(resident.batches(order.flip(0), 1, torch.Generator().manual_seed(0)))
    assert torch.equal(found.inputs, expected.inputs)
    shutil.rmtree(dataset._root / "train" / "dog")
    with pytest.raises(DataError, match=r"dog/\d.png: cannot be read") as caught:
        list(streamed.batches(order, 1, torch.Generator()))
    assert len(caught.value.faults) == 2
    del streamed
    gc.collect()


def test_a_batch_alone_is_decoded_here(dataset):
    streamed, resident = both(dataset, 0)
    rows = torch.tensor([15, 0, 3, 15])
    found, expected = (data.batch(rows, 1, torch.Generator().manual_seed(0)) for data in (streamed, resident))
    assert torch.equal(found.inputs, expected.inputs)
    assert torch.equal(found.targets, expected.targets)


def test_what_is_broken_is_named(dataset):
    streamed, _ = both(dataset, 0)
    (dataset._root / "train" / "cat" / "0.png").unlink()
    (dataset._root / "train" / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        list(streamed.batches(torch.arange(16).view(1, 16), 1, torch.Generator()))
    assert len(caught.value.faults) == 2
    assert all(name in str(caught.value) for name in ("0.png", "1.png"))


def test_first_examples_are_the_first():
    faces = SyntheticFaces(image_size=32, n_train=3, n_validation=2)
    source = StreamedExamples(faces, 0, (Split.TRAIN, Split.VALIDATION))
    parts = [faces.load(Split.TRAIN), faces.load(Split.VALIDATION)]
    whole = Examples(torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts]))
    assert len(source) == 5
    assert torch.equal(source.load().images, whole.images)
    assert torch.equal(source.first(4).targets, whole.targets[:4])
    assert len(source.first(9)) == 5


def scores(root, tmp_path, name, overrides=()):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(root=root))
    run = nas.run_search(path, tmp_path / name / "run", overrides=overrides)
    assert {record.state for record in run.records} == {RecordState.COMPLETE}
    return run, {record.id: record.metrics["accuracy"] for record in run.records}


def test_a_search_and_a_retraining_come_to_the_same_and_leave_no_images(root, tmp_path, monkeypatch):
    """Decoded in this process; the slow test has processes do it."""
    monkeypatch.setattr("nas.training.streaming.DataLoader", in_this_process)
    streamed, found = scores(root, tmp_path, "streamed", ["training.n_loader_workers=1"])
    resident, expected = scores(root, tmp_path, "resident")
    assert found == expected
    sizes = {path.stem.split("-")[0]: np.load(path).shape[0] for path in (tmp_path / "streamed").rglob("*.npy")}
    assert sizes == {"images": 4, "targets": 4, "normalization": 2, "class_counts": 6}  # of the validation split
    chosen = streamed.records[0].id
    retrained = [nas.retrain(run.path, chosen, 1).retrained for run in (streamed, resident)]
    assert retrained[0] == retrained[1]


def in_this_process(*given, **options):
    return torch.utils.data.DataLoader(
        *given, **options | {"num_workers": 0, "persistent_workers": False, "multiprocessing_context": None}
    )


@pytest.mark.slow
def test_workers_of_a_pool_have_processes_that_decode(root, tmp_path):
    pool = "execution={kind: process_pool, n_workers: 1}"
    found = scores(root, tmp_path, "streamed", ["training.n_loader_workers=1", pool])[1]
    assert found == scores(root, tmp_path, "resident", [pool])[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data={kind: fashion_mnist}"], "this kind of data cannot decode single images"),
        (["teacher={kind: resnet}"], r"write distillation: \{teacher: live\}"),
        (
            [
                "search_space={kind: segmentation_cell}",
                "data={kind: synthetic_faces}",
                "objectives=[{metric: mean_iou, direction: maximize}, {metric: n_params, direction: minimize}]",
                "pretraining={epochs: 1}",
                "training={n_loader_workers: 2, stages: [{epochs: 1, train: decoder}]}",
            ],
            "store features of all images",
        ),
        (["training.n_loader_workers=-1"], "training.n_loader_workers must be an integer of at least 0, got -1"),
    ],
)
def test_what_needs_images_on_disk_is_refused_with_streamed_ones(root, tmp_path, changes, message):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(root=root))
    with pytest.raises(ConfigurationError, match=message):
        load_config(path, ["training.n_loader_workers=2", *changes])


def test_a_live_teacher_goes_with_streamed_images(root, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(root=root))
    changes = ["training.n_loader_workers=2", "teacher={kind: resnet}", "distillation={teacher: live}"]
    assert load_config(path, changes).training.n_loader_workers == 2
