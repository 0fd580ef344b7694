"""The training split as trainings read it, and the normalisation of its images."""

from pathlib import Path

import numpy as np

from nas.data.base import Dataset, IndexedDataset, Split
from nas.data.cache import ExamplesFile, cache_examples, load_array
from nas.data.normalization import Normalization
from nas.data.stream import StreamedExamples
from nas.store.artifacts import ArtifactCache

_N_AT_A_TIME = 256  # decoded images in memory


def training_split(cache: ArtifactCache, dataset: Dataset, n_workers: int) -> ExamplesFile | StreamedExamples:
    """Return the training split decoded on disk, or to be decoded by `n_workers` processes batch by batch.

    Raises:
        DataError: If files of the data set are missing or broken.
        InputError: If the disk has no place for it.
    """
    if not n_workers:
        return cache_examples(cache, dataset, Split.TRAIN)
    assert isinstance(dataset, IndexedDataset)  # noqa: S101 - the configuration's reader refuses others
    return StreamedExamples(dataset, n_workers)


def training_normalization(
    cache: ArtifactCache, train: ExamplesFile | StreamedExamples, fingerprint: str
) -> Normalization:
    """Return the statistics of the training images; of streamed ones, which are all decoded for them, kept."""
    if isinstance(train, ExamplesFile):
        return Normalization.of(train.load().images)

    def write(path: Path) -> None:
        found = Normalization.of_parts(part.images for part in train.dataset.parts(Split.TRAIN, _N_AT_A_TIME)[1])
        np.save(path, np.array([found.mean, found.std]))

    mean, std = load_array(cache.get("normalization", {"data": fingerprint}, ".npy", write)[0]).tolist()
    return Normalization.from_values(mean, std)
