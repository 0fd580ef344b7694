"""The live view of a search: TensorBoard events, and plots redrawn at a bounded share of the time."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nas.analysis.plots import draw_pair, save_plots
from nas.search.listener import SearchListener, SearchView
from nas.store.run import Run
from nas.values.recipes import EpochSummary
from nas.values.records import Record, Role

_MAX_DRAWING_SHARE = 0.05  # of a run's time; the final drawing is not limited


class Throttle:
    """Runs a costly action only as often as it takes at most a given share of the elapsed time.

    Args:
        share: The largest share of the time since this object was made.
        clock: Returns seconds.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._share = share
        self._clock = clock
        self._start = clock()
        self._spent = 0.0
        self._last = 0.0

    def run(self, action: Callable[[], None]) -> bool:
        """Run `action` if, at its last duration, it stays within the share; return whether it ran."""
        before = self._clock()
        if self._spent + self._last > self._share * (before - self._start):
            return False
        action()
        self._last = self._clock() - before
        self._spent += self._last
        return True


class PlotListener(SearchListener):
    """Redraws the run's figures while it runs."""

    def __init__(self) -> None:
        self._throttle = Throttle(_MAX_DRAWING_SHARE)

    def on_batch(self, search: SearchView) -> None:
        """Redraw the figures, unless drawing has taken its share of the time."""
        self._throttle.run(lambda: self.on_end(search))

    def on_end(self, search: SearchView) -> None:
        """Draw the final figures."""
        save_plots(Run.of(search.folder), search.folder.path / "plots")


class TensorBoardListener(SearchListener):
    """Writes objectives, hypervolume, candidates per hour and the front's figure as TensorBoard events.

    At the end the front's confirmed metrics follow, over the numbers of its members, and the hyper-parameters.
    """

    def __init__(self) -> None:
        self._writer: Any = None
        self._throttle = Throttle(_MAX_DRAWING_SHARE)
        self._start = time.perf_counter()
        self._n_earlier = 0

    def on_start(self, search: SearchView) -> None:
        """Open a new event file; a resumed run's earlier records are in earlier files."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import, and optional

        self._writer = SummaryWriter(str(search.folder.path / "tensorboard"))
        self._start = time.perf_counter()
        self._n_earlier = len(search.records)

    def on_record(self, record: Record, search: SearchView) -> None:
        """Write the metrics of an evaluated candidate."""
        if record.role is not Role.CANDIDATE:
            return
        n_ended = len(search.records)
        for metric, value in record.metrics.items():
            self._writer.add_scalar(f"metrics/{metric}", value, n_ended)
        hours = (time.perf_counter() - self._start) / 3600
        self._writer.add_scalar("search/candidates_per_hour", (n_ended - self._n_earlier) / hours, n_ended)

    def on_batch(self, search: SearchView) -> None:
        """Write the hypervolume, and the front's figure unless drawing has taken its share of the time."""
        n_ended = len(search.records)
        self._writer.add_scalar("search/hypervolume", search.hypervolume, n_ended)
        self._writer.add_scalar("search/front_size", len(search.archive.front), n_ended)
        self._throttle.run(lambda: self._add_figures(search))
        self._writer.flush()

    def on_end(self, search: SearchView) -> None:
        """Write the final figure, the confirmed metrics and the hyper-parameters, and close the file."""
        self._add_figures(search)
        run = Run.of(search.folder)
        for record in run.front:
            for objective in run.objectives:
                tag = f"confirmed/{objective.metric}"
                self._writer.add_scalar(tag, record.metrics[objective.metric], record.number)
        best = {
            f"best/{o.metric}": o.best(record.metrics[o.metric] for record in run.front)
            for o in run.objectives
            if run.front
        }
        # The name keeps the table of hyper-parameters in this folder, not in one of its own.
        self._writer.add_hparams(_hyper_parameters(search.folder.path / "config.yaml"), best, run_name=".")
        self._writer.close()

    def _add_figures(self, search: SearchView) -> None:
        run = Run.of(search.folder)
        for other in run.objectives[1:]:
            figure = draw_pair(run, other, run.objectives[0])
            tag = f"front/{run.objectives[0].metric} over {other.metric}"
            self._writer.add_image(tag, _pixels(figure), len(search.records), dataformats="HWC")


class TrainingCurve:
    """The losses of one training as TensorBoard events, in a file of its own.

    Args:
        folder: Of the run's events.
        name: Of the training; its curves lie below it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - as above

        self._writer: Any = SummaryWriter(str(folder))
        self._name = name
        self._n_epochs = 0

    def on_epoch(self, epoch: EpochSummary) -> None:
        """Write an epoch's losses."""
        self._writer.add_scalar(f"{self._name}/task_loss", epoch.task_loss, epoch.epoch)
        if epoch.distillation_loss:
            self._writer.add_scalar(f"{self._name}/distillation_loss", epoch.distillation_loss, epoch.epoch)
        self._n_epochs = epoch.epoch
        self._writer.flush()

    def close(self, scores: Mapping[str, float]) -> None:
        """Write the test scores, and close the file."""
        for metric, value in scores.items():
            self._writer.add_scalar(f"{self._name}/test_{metric}", value, self._n_epochs)
        self._writer.close()


def _hyper_parameters(configuration: Path) -> dict[str, Any]:
    """Return the single values of a run's configuration by their dotted keys; none where there is no file."""

    def flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from flat(f"{prefix}.{key}" if prefix else str(key), item)
        elif isinstance(value, bool | int | float | str):
            yield prefix, value

    if not configuration.is_file():
        return {}
    return dict(flat("", yaml.safe_load(configuration.read_text(encoding="utf-8"))))


def _pixels(figure: Figure) -> np.ndarray:
    """Return a figure as an `(H, W, 3)` uint8 array."""
    canvas: Any = FigureCanvasAgg(figure)  # its methods are untyped
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
