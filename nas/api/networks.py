"""Train a run's teacher or pretrained encoder without searching."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nas import assembly
from nas.config import RunConfig, load_config
from nas.errors import InputError
from nas.files import temporary_name
from nas.listeners.console import ConsoleListener
from nas.search.listener import SearchListener
from nas.store.run_folder import RunFolder
from nas.torch_tools import read_weights, weights_metadata


@dataclass(frozen=True)
class TrainedNetwork:
    """A network trained for the candidates of a run: their teacher, or their pretrained encoder.

    Attributes:
        path: The file of its weights.
        scores: On the validation split, by metric; an encoder is scored with the light decoder it was trained with.
        n_params: The number of trained parameters.
    """

    path: Path
    scores: Mapping[str, float]
    n_params: int


def make_teacher(
    config: Path | str | Mapping[str, Any], run_dir: Path | str | None = None, **options: Any
) -> TrainedNetwork:
    """Return the teacher of a configuration, trained now unless a run in the same folder has trained it.

    Args:
        config: As for `run_search`.
        run_dir: As for `run_search`; only the artifacts beside this folder are written.
        options: `overrides`, `trust_code` and `console`, as for `run_search`.

    Raises:
        InputError: If the configuration has no teacher, or the data or the teacher's file is missing or does not fit.
        EvaluationError: If the training diverges.
    """
    with _preparation(config, run_dir, **options) as (settings, folder, listener):
        weights, report = assembly.make_run_teacher(settings, folder, listener)
    return TrainedNetwork(weights, report.scores, report.n_params)


def pretrain(
    config: Path | str | Mapping[str, Any], run_dir: Path | str | None = None, **options: Any
) -> TrainedNetwork:
    """Return the pretrained encoder of a configuration, trained now unless a run in the same folder has trained it.

    Arguments as for `make_teacher`. If the encoder is distilled from a teacher, that is trained before it.

    Raises:
        InputError: If the configuration has no pretraining, or the data or a file is missing or does not fit.
        EvaluationError: If a training diverges.
    """
    with _preparation(config, run_dir, **options) as (settings, folder, listener):
        weights = assembly.make_run_encoder(settings, folder, listener)
    tensors = read_weights(weights)
    n_params = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith((".weight", ".bias")))
    return TrainedNetwork(weights, json.loads(weights_metadata(weights).get("scores", "{}")), n_params)


@contextlib.contextmanager
def _preparation(
    config: Path | str | Mapping[str, Any],
    run_dir: Path | str | None,
    *,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
    console: Console | None = None,
) -> Iterator[tuple[RunConfig, RunFolder, SearchListener]]:
    """Yield configuration, run folder and listener for a training whose result several runs share.

    The run folder is a temporary one: only the shared artifacts beside it outlive the training.
    """
    settings = load_config(config, overrides, trust_code)
    beside = (Path(run_dir) if run_dir is not None else Path("runs") / settings.name).parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=beside, prefix=f"{temporary_name('preparation')}.")
    except OSError as error:
        raise InputError(f"{beside} cannot be written: {error}") from error
    with (
        scratch,
        RunFolder.write(Path(scratch.name)) as folder,
        ConsoleListener(console or Console(quiet=True)) as listener,
    ):
        yield settings, folder, listener
