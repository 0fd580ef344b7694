"""A trained network as an ONNX file of 8-bit integers, and whether that pays."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from latency.devices.onnx_device import OnnxDevice
from latency.errors import LatencyError
from nas.errors import ExportError
from nas.exporters.contract import Contract
from nas.exporters.formats import Exported, ExportOptions
from nas.exporters.onnx_file import export_onnx, onnx_run, snippet
from nas.exporters.product import Product, scaled
from nas.exporters.verification import compare

_N_CALIBRATED_AT_A_TIME = 16  # images
# The rest costs little and stays in float32: a batch normalisation in 8 bits cost 16 points of accuracy.
_QUANTISED = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


class _Images(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Hands out training images, batch by batch."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(
            np.split(images, range(_N_CALIBRATED_AT_A_TIME, len(images), _N_CALIBRATED_AT_A_TIME))
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def export_int8(product: Product, path: Path, options: ExportOptions) -> Exported:
    """Write a trained network as ONNX of 8-bit integers: static QDQ, by channel, calibrated on training images.

    Scores on the validation split, latency and size stand beside those of the file in float32.

    Raises:
        ExportError: If the run's images are not at hand, or a score falls by more than `options.max_drop`; no file is
            left then.
    """
    if product.data is None:
        raise ExportError(
            "onnx_int8 is calibrated on the run's training images, and they are not at hand: --set data.root"
        )
    if options.with_processing or options.any_size:
        raise ExportError("onnx_int8 takes float images of the training's size: leave processing and other sizes out")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = export_onnx(product, Path(folder) / "float32.onnx", ExportOptions(opset=options.opset))
            _quantise(plain.paths[0], draft, scaled(product.data.training))
            facts = _compared(product, plain.paths[0], draft, options.device)
        _refuse_beyond(facts, options.max_drop)
        compared = compare(product, onnx_run(draft), is_exact=False)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    remarks = (*_lines(facts), *_verdict(facts))
    return Exported("onnx_int8", (path,), Contract.of(product), snippet(product, path.name), compared, remarks, facts)


def _quantise(source: Path, target: Path, images: np.ndarray) -> None:
    """Quantise a file, and keep its texts."""
    prepared = source.with_name("prepared.onnx")
    try:
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            reduce_range=True,  # else products of 8 bits overflow their 16-bit sums on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        graph = onnx.load(target)
        _shorten(graph.graph)
        onnx.helper.set_model_props(graph, {prop.key: prop.value for prop in onnx.load(source).metadata_props})
        onnx.save(graph, target)
    except Exception as error:
        raise ExportError(f"onnxruntime could not quantise the network: {error}") from error


def _shorten(graph: onnx.GraphProto) -> None:
    """Leave out what only people read, and give inner tensors short names: a third of a small network's file."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if name in kept or not name else names.setdefault(name, f"t{len(names)}")

    del graph.value_info[:]
    del graph.metadata_props[:]
    for tensor in graph.initializer:
        tensor.name, tensor.doc_string = short(tensor.name), ""
    for number, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{number}", ""
        node.input[:] = map(short, node.input)
        node.output[:] = map(short, node.output)
        del node.metadata_props[:]


def _compared(product: Product, plain: Path, quantised: Path, device: OnnxDevice) -> dict[str, Any]:
    """Return scores, latency and size of both files."""
    assert product.data is not None  # noqa: S101 - checked by the caller
    files = {"float32": plain, "int8": quantised}
    facts: dict[str, Any] = {
        name: {"scores": product.data.score(onnx_run(file)), "n_bytes": file.stat().st_size}
        for name, file in files.items()
    }
    for name, file in files.items():
        try:
            facts[name]["latency_ms"] = device.measure_file(file, product.signature.input_shape).median_ms
        except LatencyError as error:
            facts[name]["latency_ms"] = None
            facts["latency_problem"] = str(error)
    return facts


def _refuse_beyond(facts: dict[str, Any], max_drop: float | None) -> None:
    if max_drop is None:
        return
    for metric, before in facts["float32"]["scores"].items():
        after = facts["int8"]["scores"][metric]
        if before - after > max_drop:
            raise ExportError(
                f"int8 loses {before - after:.4f} of {metric} ({before:.4f} to {after:.4f}), more than --max-drop "
                f"{max_drop:g}: no file was written"
            )


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    plain, quantised = facts["float32"], facts["int8"]
    for metric, before in plain["scores"].items():
        yield f"{metric} on the validation split: {before:.4f} in float32, {quantised['scores'][metric]:.4f} in int8"
    share = quantised["n_bytes"] / plain["n_bytes"]
    yield f"size: {plain['n_bytes']:,} bytes in float32, {quantised['n_bytes']:,} in int8 ({share:.2f} times)"
    if quantised["latency_ms"] and plain["latency_ms"]:
        ratio = quantised["latency_ms"] / plain["latency_ms"]
        yield (
            f"latency in onnxruntime here: {plain['latency_ms']:.3g} ms in float32, "
            f"{quantised['latency_ms']:.3g} ms in int8 ({ratio:.2f} times)"
        )
    else:
        yield f"latency: not measured: {facts.get('latency_problem', '')}"


def _verdict(facts: dict[str, Any]) -> Iterator[str]:
    """Yield whether int8 pays, where it does not."""
    plain, quantised = facts["float32"], facts["int8"]
    if quantised["latency_ms"] and plain["latency_ms"] and quantised["latency_ms"] >= plain["latency_ms"]:
        size = "smaller" if quantised["n_bytes"] < plain["n_bytes"] else "no smaller"
        yield f"int8 does not pay on this machine: it is slower than float32, and {size}"
