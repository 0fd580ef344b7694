"""What a file of readings says of a device: the readings of some models, and a predictor learnt from them."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import sklearn

from latency.errors import PredictionError
from latency.predictors.base import Encodings
from latency.predictors.blend import Blend
from latency.predictors.encoding import LayerEncoder
from latency.predictors.gaussian_process import GaussianProcess
from latency.predictors.layers import Layer
from latency.predictors.lookup import LookupTable

FORMAT = "pareto-nas latency readings 1"
_LEAST = 10  # readings that anything is learnt from
_MOST = 2_000  # the time to learn grows with the cube
_MAX_BYTES = 1 << 25
_MAX_NUMBERS = 1 << 26  # in the encodings
_FAR_OFF = 3.5  # spreads of the others' prediction, beyond which a reading is measured again


@dataclass(frozen=True)
class Header:
    """What all readings of a file have in common.

    Attributes:
        device: Its kind and options, as in a configuration.
        input_shape: Of one image, `(C, H, W)`.
        batch_size: Images in one inference.
        conditions: Of the first reading: device, runtime, versions.
        source: Where the models come from, in words.
        fitted: Of a file that was fitted: the weights of the predictors, the range of the latencies and of the layers
            of each kind, versions of the libraries that learnt; empty for readings as they were taken.
    """

    device: Mapping[str, Any]
    input_shape: tuple[int, ...]
    batch_size: int
    conditions: Mapping[str, Any]
    source: str = ""
    fitted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """One model, and how long it took.

    Attributes:
        name: Of the model, such as its genotype.
        layers: In the order in which they run.
        latencies_ms: Of each time that it was measured; their median counts.
        is_alone: Whether it is one layer, measured alone.
    """

    name: str
    layers: tuple[Layer, ...]
    latencies_ms: tuple[float, ...]
    is_alone: bool = False

    @property
    def latency_ms(self) -> float:
        """The reading that counts."""
        return float(np.median(self.latencies_ms))


@dataclass(frozen=True)
class Foretold:
    """What is said of one model's latency.

    Attributes:
        mean_ms: The expected reading.
        low_ms: Lower end of the interval that is to hold 90 % of such models' readings.
        high_ms: Its upper end.
        doubts: In words, why the figures may not hold; empty where nothing speaks against them.
    """

    mean_ms: float
    low_ms: float
    high_ms: float
    doubts: tuple[str, ...] = ()


class DeviceModel:
    """A predictor of a device, learnt from readings when it is made.

    Args:
        header: Of the readings.
        readings: What was measured: models, and layers alone.

    Attributes:
        header: As given.
        readings: Those of models.
        alone: Those of layers alone.
        sha256: Of the file that it was read from; empty for none.

    Raises:
        PredictionError: If there are too few, or more than can be learnt from.
    """

    def __init__(self, header: Header, readings: Sequence[Reading]) -> None:
        self.header, self.sha256 = header, ""
        self.readings = tuple(reading for reading in readings if not reading.is_alone)
        self.alone = tuple(reading for reading in readings if reading.is_alone)
        if not _LEAST <= len(self.readings) <= _MOST:
            raise PredictionError(f"readings of {_LEAST} to {_MOST:,} models are needed, got {len(self.readings):,}")
        if len(self.alone) > _MOST:
            raise PredictionError(f"readings of at most {_MOST:,} layers alone are needed, got {len(self.alone):,}")
        self.latencies_ms = np.array([reading.latency_ms for reading in self.readings])
        models = [reading.layers for reading in self.readings]
        n_kinds, longest = len({layer.kind for layers in models for layer in layers}), max(map(len, models))
        if len(models) * longest * (n_kinds + 5) > _MAX_NUMBERS:
            raise PredictionError(
                f"{len(models):,} models of up to {longest:,} layers of {n_kinds:,} kinds are too many"
            )
        self._encoder = LayerEncoder.of(models, table_of(self.alone))
        self._encodings = self._encoder.encode(models)
        self._blend = Blend()
        self._blend.fit(self._encodings, self.latencies_ms)

    @property
    def weights(self) -> Mapping[str, float]:
        """Of the predictors in the blend, by name."""
        return self._blend.weights

    def foretell(self, models: Sequence[Sequence[Layer]], max_spread: float = math.inf) -> list[Foretold]:
        """Return what is said of some models.

        Args:
            models: Their layers.
            max_spread: The widest interval to be sure of: half its width, as a share of the mean.
        """
        found = self._blend.predict(self._encoder.encode(models))
        said = []
        for layers, mean, low, high in zip(models, found.mean_ms, found.low_ms, found.high_ms, strict=True):
            half = (high - low) / 2 / mean
            wide = (f"the interval is {half:.0%} of the mean to each side",) if half > max_spread else ()
            said.append(Foretold(float(mean), float(low), float(high), (*self._encoder.doubts(layers), *wide)))
        return said

    def far_off(self) -> list[int]:
        """Return the readings that those of the other models speak against."""
        process = GaussianProcess()
        process.fit(self._encodings, self.latencies_ms)
        held_out = process.held_out()
        distance = np.abs(self.latencies_ms - held_out.mean_ms) / held_out.spread_ms
        return [int(row) for row in np.flatnonzero(distance > _FAR_OFF)]

    def text(self) -> str:
        """Return the file of this model: one reading for each network, in the header what was learnt."""
        encoder, latencies = self._encoder, self.latencies_ms
        fitted = {
            "weights": self.weights,
            "latency_ms": [float(latencies.min()), float(latencies.max())],
            "layers": dict(zip(encoder.kinds, map(list, encoder.ranges), strict=True)),
            "versions": {"numpy": np.__version__, "scikit-learn": sklearn.__version__},
        }
        lines = [
            reading_line(r.name, r.layers, r.latency_ms, is_disturbed=False, is_alone=r.is_alone)
            for r in (*self.alone, *self.readings)
        ]
        return "".join([header_line(replace(self.header, fitted=fitted)), *lines])

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what a file's readings say.

        Raises:
            PredictionError: If there is no such file, it is no file of readings, or has too few of them.
        """
        header, readings = read_readings(path)
        try:
            model = cls(header, readings)
        except (ValueError, PredictionError) as error:
            raise PredictionError(f"{path}: {error}") from error
        model.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return model


def read_readings(path: Path) -> tuple[Header, list[Reading]]:
    """Return the header and the readings of a file; what was measured several times is one reading.

    A last line that was cut off, by a process that was killed, is left out.

    Raises:
        PredictionError: If there is no such file, or it is none of readings.
    """
    try:
        if not path.is_file():
            raise PredictionError(f"{path} cannot be read as a file of readings: there is no such file")
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise PredictionError(
                f"{path} is no file of readings: it must have at most {_MAX_BYTES >> 20} MiB, it has {size >> 20}"
            )
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PredictionError(f"{path} cannot be read as a file of readings: {error}") from error
    whole = lines[:-1]  # a line is whole when its end is there
    try:
        first, *others = [json.loads(line) for line in whole]
        if first.pop("format") != FORMAT:
            raise ValueError("another format")
        header = Header(**{**first, "input_shape": tuple(first["input_shape"])})
        return header, _joined(others)
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        raise PredictionError(
            f"{path} is no file of readings, or is damaged ({type(error).__name__}: {error}): "
            "make one with nas latency collect"
        ) from error


def _joined(lines: Sequence[Mapping[str, Any]]) -> list[Reading]:
    """Return one reading for each model."""
    by_name: dict[str, Reading] = {}
    for line in lines:
        latency = float(line["latency_ms"])
        if not 0 < latency < math.inf:
            raise ValueError(f"a latency must be positive and finite, got {latency}")
        known = by_name.get(line["name"])
        layers = known.layers if known else tuple(_layers(line["layers"]))
        before = known.latencies_ms if known else ()
        is_alone = line.get("is_alone", False) is True
        if is_alone and len(layers) != 1:
            raise ValueError(f"a layer alone must be one layer, got {len(layers)}")
        by_name[line["name"]] = Reading(str(line["name"]), layers, (*before, latency), is_alone)
    return list(by_name.values())


def table_of(alone: Sequence[Reading]) -> LookupTable | None:
    """Return the table of layers that were measured alone; `None` if none was."""
    return LookupTable({reading.layers[0]: reading.latency_ms for reading in alone}) if alone else None


def _layers(rows: Sequence[Sequence[Any]]) -> Iterator[Layer]:
    for kind, *numbers in rows:
        if not isinstance(kind, str) or not all(isinstance(n, int) and 0 <= n < 2**60 for n in numbers):
            raise ValueError(f"a layer must be a name and whole numbers from 0, got {[kind, *numbers]}")
        yield Layer(kind, *numbers)


def header_line(header: Header) -> str:
    """Return the first line of a file."""
    return json.dumps({"format": FORMAT, **vars(header), "input_shape": list(header.input_shape)}) + "\n"


def reading_line(
    name: str, layers: Sequence[Layer], latency_ms: float, *, is_disturbed: bool, is_alone: bool = False
) -> str:
    """Return the line of one measurement."""
    line: dict[str, Any] = {"name": name, "latency_ms": latency_ms, "is_disturbed": is_disturbed}
    line["layers"] = [[layer.kind, *layer.numbers] for layer in layers]
    return json.dumps(line | ({"is_alone": True} if is_alone else {})) + "\n"


def encodings_of(models: Sequence[Sequence[Layer]], table: LookupTable | None = None) -> Encodings:
    """Return the encodings of models among themselves, such as a pool to choose from."""
    return LayerEncoder.of(models, table).encode(models)
