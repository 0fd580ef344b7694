"""Readings of a device: networks of a search space, chosen and measured, kept one by one."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from latency.devices.base import Device
from latency.devices.measured import MEASURED
from latency.errors import DeviceUnavailableError, LatencyError, MeasurementError, PredictionError
from latency.graph.tracer import graph_from_torch
from latency.predictors.alone import LayerAlone, layers_alone
from latency.predictors.design import most_informative
from latency.predictors.device_model import (
    DeviceModel,
    Foretold,
    Header,
    Reading,
    encodings_of,
    header_line,
    read_readings,
    reading_line,
    table_of,
)
from latency.predictors.gaussian_process import GaussianProcess
from latency.predictors.layers import Layer, layers_of
from latency.predictors.quality import scores
from nas.config import RunConfig, load_config
from nas.errors import InputError
from nas.faults import blaming_machine, machine_error
from nas.files import write_text
from search_spaces.base import ModelSpace
from search_spaces.genotype import Genotype

_POOL_FACTOR = 4  # networks to choose from, for each one that is measured
_LEAST_POOL = 60
_FIRST = 10  # networks that are chosen before anything is known
_N_READINGS = 3  # of one network at most
_SHORTEST = 1 << 16  # bytes; a file of readings that is smaller may be the start of its first line

_log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class _Networks:
    """Networks of a space, with their layers; equal arguments give equal ones."""

    space: ModelSpace
    settings: RunConfig
    genotypes: tuple[Genotype, ...]
    layers: tuple[tuple[Layer, ...], ...]
    alone: Mapping[Layer, Callable[[], LayerAlone]]

    @property
    def names(self) -> list[str]:
        return [",".join(map(str, genotype.genes)) for genotype in self.genotypes]

    def built(self, row: int) -> nn.Module:
        """Return a network, its weights random."""
        shape, n_classes = _sizes(self.settings)
        return self.space.build(self.genotypes[row], in_channels=shape[0], n_classes=n_classes, seed=0).eval()


@dataclass(frozen=True)
class Collected:
    """What a collection came to.

    Attributes:
        path: The file.
        n_models: That have been measured.
        n_failed: Networks that the device could not measure; others took their places.
        n_alone: Layers that have been measured alone.
        n_repeated: Readings that were taken again, as something disturbed them or the others speak against them.
        drift: By what the first network's last reading differs from its first one, as a share.
    """

    path: Path
    n_models: int
    n_failed: int
    n_alone: int
    n_repeated: int
    drift: float


def collect(
    config: Path,
    device_name: str,
    n: int,
    out: Path,
    *,
    n_alone: int = 0,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
    on_progress: OnProgress = lambda name, n_done, n_all: None,
) -> Collected:
    """Measure `n` networks of a configuration's space on one of its devices, and keep each reading in `out` at once.

    Before them up to `n_alone` of their layers are measured alone, those that occur in most networks first. The first
    networks are spread over the space, the others those that the readings so far say least of. A reading that something
    disturbed, or that the others speak against, is taken again at the end. Called again, it goes on.

    Raises:
        InputError: If the configuration is faulty or names no such device, `n` is too small, or `out` holds readings of
            something else.
        MachineError: If the device is lost, or nothing can be written.
    """
    if n < _FIRST:
        raise InputError(f"-n must be at least {_FIRST}: nothing can be learnt from fewer readings, got {n}")
    settings = load_config(config, overrides, trust_code)
    if device_name not in settings.devices:
        known = ", ".join(settings.devices) or "none"
        raise InputError(f"{config}: devices has no {device_name!r} to measure on; it has {known}")
    component = settings.devices[device_name]
    if component.kind not in MEASURED:
        raise InputError(f"{config}: devices.{device_name} is of kind {component.kind!r}: give one that measures")
    device = component.instance
    try:
        device.check()
    except DeviceUnavailableError as error:
        raise InputError(f"{config}: devices.{device_name}: {error}") from error
    shape, _ = _sizes(settings)
    header = Header(
        device={"kind": component.kind, **component.options},
        input_shape=shape,
        batch_size=int(component.options.get("batch_size", 1)),
        conditions={},
        source=f"{settings.search_space.kind} {dict(settings.search_space.options)}",
    )
    if n_alone < 0:
        raise InputError(f"--layers must be at least 0, got {n_alone}")
    done = _done(out, header)
    networks = _networks(settings, max(_POOL_FACTOR * n, _LEAST_POOL), header.batch_size, n_alone, on_progress)
    collection = _Collection(networks, device, out, header, done, on_progress)
    collection.run(min(n, len(networks.genotypes)))
    return collection.outcome()


class _Collection:
    """Measures what is still to be measured."""

    def __init__(
        self,
        networks: _Networks,
        device: Device,
        out: Path,
        header: Header,
        done: list[Reading],
        on_progress: OnProgress,
    ) -> None:
        self._networks, self._device, self._out, self._header = networks, device, out, header
        self._readings = {reading.name: reading for reading in done if not reading.is_alone}
        self._alone = {reading.layers[0]: reading for reading in done if reading.is_alone}
        self._on_progress = on_progress
        self._disturbed: list[int] = []
        self._failed: set[int] = set()
        self._n_repeated = 0
        self._rng = np.random.default_rng(0)

    def run(self, n: int) -> None:
        """Measure until there are readings of `n` networks, then those again that are doubtful."""
        self._measure_alone()
        while len(self._measured()) < n:
            measured = self._measured()
            process = self._process(measured)
            gone = np.union1d(measured, sorted(self._failed)).astype(int)
            more = min(max(_FIRST, 2 * len(measured)) - len(measured), n - len(measured), len(self._pool) - len(gone))
            if more <= 0:
                raise InputError(f"only {len(measured)} of the networks drawn could be measured, {n} are asked for")
            for row in most_informative(self._pool, more, measured=gone, process=process, rng=self._rng):
                self._measure(int(row))
                self._on_progress("measured", len(self._measured()), n)
        self._measure_again()

    def outcome(self) -> Collected:
        """Return what it came to."""
        first = next(iter(self._readings.values())).latencies_ms
        drift = first[-1] / first[0] - 1
        return Collected(self._out, len(self._readings), len(self._failed), len(self._alone), self._n_repeated, drift)

    def _measured(self) -> np.ndarray:
        return np.array([row for row, name in enumerate(self._networks.names) if name in self._readings], int)

    def _measure_alone(self) -> None:
        """Measure layers alone; one that the device cannot measure so is left out."""
        layers = self._networks.alone
        for number, (layer, make) in enumerate(layers.items()):
            if layer not in self._alone:
                model = make()
                name = f"{layer.kind} {layer.numbers}"
                try:
                    latency, _ = self._taken(name, (layer,), model, model.input_shape)
                except MeasurementError as error:
                    _log.warning("The layer %s cannot be measured alone, and is estimated: %s", name, error)
                else:
                    self._alone[layer] = Reading(name, (layer,), (latency,), is_alone=True)
            self._on_progress("layers measured alone", number + 1, len(layers))
        self._pool = encodings_of(self._networks.layers, table_of(list(self._alone.values())))

    def _process(self, measured: np.ndarray) -> GaussianProcess | None:
        if len(measured) < _FIRST:
            return None
        names = self._networks.names
        process = GaussianProcess(self._pool)
        process.fit(self._pool.take(measured), np.array([self._readings[names[row]].latency_ms for row in measured]))
        return process

    def _measure(self, row: int) -> None:
        name, layers = self._networks.names[row], self._networks.layers[row]
        try:
            latency, is_disturbed = self._taken(name, layers, self._networks.built(row), self._header.input_shape)
        except MeasurementError:
            self._failed.add(row)
            return
        before = self._readings[name].latencies_ms if name in self._readings else ()
        self._readings[name] = Reading(name, layers, (*before, latency))
        if is_disturbed:
            self._disturbed.append(row)

    def _taken(
        self, name: str, layers: tuple[Layer, ...], model: nn.Module, shape: tuple[int, ...]
    ) -> tuple[float, bool]:
        """Measure a model and keep the reading; return it in ms, and whether something disturbed it.

        Raises:
            MeasurementError: If the model cannot be measured.
            MachineError: If the device is lost.
        """
        try:
            stats = self._device.measure_latency(model, shape)
        except DeviceUnavailableError as error:  # it was here at the start
            raise machine_error("the device cannot measure any more", error) from error
        if not self._out.exists():
            kept = {k: value for k, value in stats.conditions.items() if isinstance(value, str | int | float | bool)}
            self._append(header_line(Header(**{**vars(self._header), "conditions": kept})))
        is_alone = isinstance(model, LayerAlone)
        line = reading_line(name, layers, stats.median_ms, is_disturbed=stats.is_disturbed, is_alone=is_alone)
        self._append(line)
        return stats.median_ms, stats.is_disturbed

    def _measure_again(self) -> None:
        """Measure again what was disturbed or lies far from the others; and the first network, to see a drift."""
        names = self._networks.names
        model = DeviceModel(self._header, [*self._alone.values(), *self._readings.values()])
        doubtful = {model.readings[row].name for row in model.far_off()} | {names[row] for row in self._disturbed}
        doubtful.add(next(iter(self._readings)))
        again = [
            row
            for row, name in enumerate(names)
            if name in doubtful and len(self._readings[name].latencies_ms) < _N_READINGS
        ]
        for number, row in enumerate(again):
            self._on_progress("measured again", number, len(again))
            self._measure(row)
            self._n_repeated += 1

    def _append(self, line: str) -> None:
        with blaming_machine(f"{self._out} cannot be written"), self._out.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _done(out: Path, header: Header) -> list[Reading]:
    """Return the readings that an earlier call took; a line that was cut off is removed."""
    if not out.exists() or (out.is_file() and out.stat().st_size < _SHORTEST and b"\n" not in out.read_bytes()):
        out.unlink(missing_ok=True)  # at most the start of a first line
        return []
    try:
        found, readings = read_readings(out)
    except PredictionError as error:
        raise InputError(str(error)) from error
    ours = (dict(header.device), header.input_shape, header.source)
    if (dict(found.device), found.input_shape, found.source) != ours:
        raise InputError(
            f"{out} holds readings of something else ({found.source} for images of {found.input_shape} on "
            f"{dict(found.device)}): give another file with --out"
        )
    content = out.read_bytes()
    if not content.endswith(b"\n"):
        out.write_bytes(content[: content.rfind(b"\n") + 1])
    return readings


def _networks(settings: RunConfig, n: int, batch_size: int, n_alone: int, on_progress: OnProgress) -> _Networks:
    """Return up to `n` different networks that can be traced, and their `n_alone` most frequent layers."""
    space = settings.search_space.instance
    if not isinstance(space, ModelSpace):
        raise InputError(f"search_space {space.name!r} builds no networks that could be measured")
    shape, n_classes = _sizes(settings)
    rng = np.random.default_rng(settings.seed)
    found: dict[Genotype, tuple[Layer, ...]] = {}
    alone: dict[Layer, Callable[[], LayerAlone]] = {}
    for _ in range(20 * n):
        genotype = space.canonical(space.sample(rng))
        if genotype in found:
            continue
        model = space.build(genotype, in_channels=shape[0], n_classes=n_classes, seed=0).eval()
        graph = graph_from_torch(model, shape, batch_size=batch_size)
        found[genotype] = layers_of(graph)
        alone = layers_alone(graph) | alone
        on_progress("networks to choose from", len(found), n)
        if len(found) == n:
            break
    counts = Counter(layer for layers in found.values() for layer in set(layers))
    chosen = sorted(alone, key=lambda layer: -counts[layer])[:n_alone]
    kept = {layer: alone[layer] for layer in chosen}
    return _Networks(space, settings, tuple(found), tuple(found.values()), kept)


def _sizes(settings: RunConfig) -> tuple[tuple[int, ...], int]:
    """Return the shape of an image and the number of classes."""
    if settings.data is None:
        raise InputError("the configuration has no data section, which sets the size of a network's input")
    data = settings.data.instance
    return (data.in_channels, *data.image_size), len(data.class_names)


def fit(readings: Path, out: Path) -> DeviceModel:
    """Learn from a file of readings, and write the file that a device of kind `predicted` takes.

    Raises:
        InputError: If the file is none of readings, or holds too few, or `out` cannot be written.
    """
    try:
        model = DeviceModel.load(readings)
    except LatencyError as error:
        raise InputError(str(error)) from error
    try:
        write_text(out, model.text())
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error}") from error
    return model


@dataclass(frozen=True)
class Quality:
    """How well a file's readings foretell each other.

    Attributes:
        n: Readings.
        said: What is said of each from the others, in folds.
        latencies_ms: The readings themselves.
        weights: Of the predictors in the blend.
    """

    n: int
    said: tuple[Foretold, ...]
    latencies_ms: tuple[float, ...]
    weights: Mapping[str, float]

    @property
    def figures(self) -> dict[str, Any]:
        """Rank correlations, shares within 5 and 10 %, coverage of the 90 % interval, and the doubtful ones."""
        truth = np.array(self.latencies_ms)
        mean, low, high = (np.array([getattr(s, key) for s in self.said]) for key in ("mean_ms", "low_ms", "high_ms"))
        return {"n": self.n, **scores(mean, low, high, truth), "n_doubtful": sum(bool(s.doubts) for s in self.said)}


def evaluate(readings: Path, on: Path | None = None, n_folds: int = 5) -> Quality:
    """Return how well a predictor learnt from a file's readings foretells others.

    Args:
        readings: The file.
        on: Readings to foretell; `None` for those of the file itself, each from the other folds.
        n_folds: How often to learn.

    Raises:
        InputError: If a file is none of readings, or holds too few.
    """
    try:
        model = DeviceModel.load(readings)
        if on is not None:
            _, found_on = read_readings(on)
            others = [reading for reading in found_on if not reading.is_alone]
            said = model.foretell([reading.layers for reading in others])
            return Quality(len(others), tuple(said), tuple(r.latency_ms for r in others), model.weights)
        order = np.random.default_rng(0).permutation(len(model.readings))
        found: dict[int, Foretold] = {}
        for fold in range(n_folds):
            here = order[fold::n_folds]
            others = [model.readings[row] for row in order if row not in set(here)]
            rest = DeviceModel(model.header, [*model.alone, *others])
            told = rest.foretell([model.readings[row].layers for row in here])
            found.update(zip(map(int, here), told, strict=True))
    except LatencyError as error:
        raise InputError(str(error)) from error
    said = [found[row] for row in range(len(model.readings))]
    return Quality(len(said), tuple(said), tuple(model.latencies_ms.tolist()), model.weights)
