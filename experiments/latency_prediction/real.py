"""How well are latencies on this machine foretold, and how far do its own readings repeat?

Networks of a configuration's space are measured, their layers alone before them. Predictors learn from the first ones,
which are those that `nas latency collect` chose first, and foretell the others. Some networks are measured once more at
the end: nothing can foretell a reading better than it repeats.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import parser, report
from latency.predictors.device_model import DeviceModel, read_readings
from latency.predictors.quality import scores
from nas.config import load_config
from nas.profiling.collecting import collect
from search_spaces.base import ModelSpace

N_AGAIN = 40


def of_device(config: Path, kind: str, n: int, n_alone: int, sizes: list[int], folder: Path) -> dict[str, Any]:
    """Return the scores by number of readings, with and without layers alone, and how far readings repeat."""
    overrides = [
        f"devices={{here: {{kind: {kind}}}}}",
        "objectives=[{metric: latency_ms, device: here}, {metric: n_params}]",
        "constraints=[]",
        "reference_point={}",
    ]
    path = folder / f"{kind}.jsonl"
    collect(config, "here", n, path, n_alone=n_alone, overrides=overrides)
    header, found = read_readings(path)
    alone = [reading for reading in found if reading.is_alone]
    networks = [reading for reading in found if not reading.is_alone]
    result: dict[str, Any] = {"n_networks": len(networks), "n_alone": len(alone)}
    for name, table in (("with_layers_alone", alone), ("without", [])):
        result[name] = {}
        for size in sizes:
            rest = networks[max(sizes) :]
            said = DeviceModel(header, [*table, *networks[:size]]).foretell([reading.layers for reading in rest])
            mean, low, high = (np.array([getattr(s, key) for s in said]) for key in ("mean_ms", "low_ms", "high_ms"))
            truth = np.array([reading.latency_ms for reading in rest])
            result[name][str(size)] = scores(mean, low, high, truth)
    settings = load_config(config, overrides)
    again = networks[max(sizes) :: max(1, (len(networks) - max(sizes)) // N_AGAIN)]
    result["repeated"] = repeated(settings, [(reading.name, reading.latencies_ms[0]) for reading in again])
    return result


def repeated(settings: Any, before: list[tuple[str, float]]) -> dict[str, float]:
    """Measure networks again and return how many readings lie within 5 and 10 % of those before."""
    space, data = settings.search_space.instance, settings.data.instance
    assert isinstance(space, ModelSpace)  # noqa: S101 - collecting has refused others
    shape = (data.in_channels, *data.image_size)
    shifts = []
    for name, latency in before:
        genotype = space.genotype([int(gene) for gene in name.split(",")])
        model = space.build(genotype, in_channels=shape[0], n_classes=len(data.class_names), seed=0).eval()
        shifts.append(settings.devices["here"].instance.measure_latency(model, shape).median_ms / latency - 1)
    sizes = np.abs(shifts)
    return {
        "n": len(shifts),
        "within_5": float((sizes <= 0.05).mean()),
        "within_10": float((sizes <= 0.1).mean()),
        "median_shift": float(np.median(shifts)),
    }


def main() -> None:
    """Measure, learn, foretell and report."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    arguments.add_argument("--devices", nargs="+", default=["onnxruntime", "torch_cpu"])
    arguments.add_argument("-n", type=int, default=300, help="networks to measure")
    arguments.add_argument("--layers", type=int, default=150, help="layers to measure alone")
    arguments.add_argument("--samples", default="10,20,50,100", help="readings to learn from")
    options = arguments.parse_args()
    sizes = [int(size) for size in options.samples.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        found = {
            kind: of_device(options.config, kind, options.n, options.layers, sizes, Path(folder))
            for kind in options.devices
        }
    report({"config": str(options.config), "devices": found}, options)


if __name__ == "__main__":
    main()
