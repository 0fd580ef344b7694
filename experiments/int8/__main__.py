"""What do float16 and int8 cost and save, for three networks of a front on Fashion-MNIST and of one on CamVid?"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from rich.console import Console

import nas
from experiments.common import parser, report
from latency.devices.onnx_device import OnnxDevice
from latency.errors import LatencyError
from nas.api.products import product_of
from nas.config import load_config
from nas.errors import ExportError
from nas.exporters import ExportOptions, Product
from nas.exporters.int8 import export_int8
from nas.exporters.onnx_file import export_onnx, onnx_run
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.records import Record

_CONFIGS = Path(__file__).parents[2] / "configs"
_CUTS = {
    "fashion_mnist": ("controller.n_generations=1", "execution={kind: serial, n_threads: 2}"),
    "camvid": (
        "data.image_size=[96, 128]",
        "teacher.recipe.epochs=6",
        "pretraining.epochs=4",
        "training.n_threads_alone=2",
        "training.n_views=2",
        "training.stages.0.epochs=2",
        "training.stages.1.epochs=1",
        "training.drop_rule.n_peers=4",
        "controller.population_size=8",
        "controller.n_generations=1",
        "references=[]",
    ),
}
_N_NETWORKS = 3
_N_ROUNDS = 5  # of latency measurements


def spread_over_front(run: Run, score: str) -> list[Record]:
    """Return three members of the front: the best by score, the smallest, and the one halfway between in size."""
    by_size = sorted(run.front, key=lambda record: record.metrics["n_params"])
    best = max(run.front, key=lambda record: record.metrics[score])
    others = [record for record in by_size if record is not best]
    if len(others) < _N_NETWORKS - 1:
        raise SystemExit(f"{run.path}: the front has {len(run.front)} members, {_N_NETWORKS} are needed")
    return [others[0], others[len(others) // 2], best]


def write_files(product: Product, folder: Path) -> dict[str, Path]:
    """Write the network in each number format that can be written, and return the files."""
    plain = export_onnx(product, folder / "float32.onnx", ExportOptions()).paths[0]
    half = folder / "float16.onnx"
    onnx.save(convert_float_to_float16(onnx.load(plain), keep_io_types=True), half)
    eight = export_int8(product, folder / "int8.onnx", ExportOptions()).paths[0]
    return {"float32": plain, "float16": half, "int8": eight}


def latencies(files: dict[str, Path], shape: tuple[int, ...]) -> dict[str, float | None]:
    """Return the median over rounds of each file's latency in ms, the files in turn; `None` where one does not run."""
    device, found = OnnxDevice(), {name: list[float]() for name in files}
    for _ in range(_N_ROUNDS):
        for name, file in files.items():
            try:
                found[name].append(device.measure_file(file, shape).median_ms)
            except LatencyError:
                continue
    return {name: statistics.median(values) if values else None for name, values in found.items()}


def compared(product: Product, metric: str) -> dict[str, Any]:
    """Return score, size and latency of a network in each number format."""
    assert product.data is not None  # noqa: S101 - main checks it
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(product, Path(folder))
        times = latencies(files, product.signature.input_shape)
        for name, file in files.items():
            try:
                score = product.data.score(onnx_run(file))[metric]
            except ExportError as error:
                result[name] = {"problem": str(error)}
                continue
            result[name] = {metric: score, "n_bytes": file.stat().st_size, "latency_ms": times[name]}
    for name in ("float16", "int8"):
        if "problem" in result[name]:
            continue
        plain, other = result["float32"], result[name]
        other["points_lost"] = 100 * (plain[metric] - other[metric])
        other["size_ratio"] = other["n_bytes"] / plain["n_bytes"]
        if plain["latency_ms"] and other["latency_ms"]:
            other["latency_ratio"] = other["latency_ms"] / plain["latency_ms"]
    return result


def on_data(name: str, metric: str, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Search on a cut of the data, train three of the front fully, and compare their files."""
    folder = options.runs / f"int8_{name}"
    run = nas.run_search(
        _CONFIGS / f"{name}.yaml", folder, resume=True, overrides=[*_CUTS[name], *options.set], console=console
    )
    config = load_config(run.path / "config.yaml")
    networks: dict[str, Any] = {}
    for record in spread_over_front(run, metric):
        if record.retrained_conditions.get("epochs") != options.epochs:
            nas.retrain(run.path, record.id, options.epochs, console=console)
        with RunFolder.read(run.path) as opened:
            product = product_of(config, opened, record)
        if product.data is None:
            raise SystemExit(f"{run.path}: its images are not at hand")
        console.print(f"Comparing the files of {record.id}.", highlight=False)
        facts = {"n_params": int(record.metrics["n_params"]), "network": record.candidate.description}
        networks[record.id] = {**facts, **compared(product, metric)}
    return networks


def main() -> None:
    """Search, retrain, write, measure, and report."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--epochs", type=int, default=8, help="of each retraining")
    arguments.add_argument("--runs", type=Path, default=Path("runs"), help="where the searches' folders lie")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="as in nas search")
    options = arguments.parse_args()
    console = Console(stderr=True)
    scores = {"fashion_mnist": "accuracy", "camvid": "mean_iou"}
    networks = {name: on_data(name, metric, options, console) for name, metric in scores.items()}
    eights = [network["int8"] for of_data in networks.values() for network in of_data.values()]
    summary = {
        key: [
            min(one[key] for one in eights),
            statistics.median(one[key] for one in eights),
            max(one[key] for one in eights),
        ]
        for key in ("points_lost", "size_ratio", "latency_ratio")
    }
    report({"epochs": options.epochs, "int8_min_median_max": summary, "networks": networks}, options)


if __name__ == "__main__":
    main()
