"""A trained network as one ONNX file, in float32: as it is, or with pre- and postprocessing inside."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

from latency.errors import OnnxExportError
from latency.graph.onnx_writer import write_onnx, write_traced
from nas.errors import ExportError
from nas.exporters.contract import Contract, processed_names
from nas.exporters.formats import Exported, ExportOptions
from nas.exporters.product import ImageNetwork, Product, Run
from nas.exporters.verification import Comparison, compare

_N_CHECKED = 4  # images of each size, where processing is inside
_SNIPPET = """import numpy, onnxruntime
from PIL import Image

pixels = Image.open("IMAGE").convert("{mode}").resize(({width}, {height}), Image.Resampling.BILINEAR)
image = numpy.asarray(pixels, numpy.float32).reshape({height}, {width}, -1).transpose(2, 0, 1)[None] / 255
session = onnxruntime.InferenceSession("{name}")
(logits,) = session.run(None, {{"image": image}})
print(logits.argmax(1))"""
_PROCESSED_SNIPPET = """import numpy, onnxruntime
from PIL import Image

image = numpy.asarray(Image.open("IMAGE").convert("{mode}")).reshape({shape})
session = onnxruntime.InferenceSession("{name}")
{first}, probability = session.run(None, {{"image": image}})
print({first})"""


def export_onnx(product: Product, path: Path, options: ExportOptions) -> Exported:
    """Write a trained network as ONNX with a dynamic batch size, and check its outputs against torch's.

    The file's input is `image`, `(B, C, H, W)` float32 in 0 .. 1; its output is `logits`. Its metadata hold the class
    names (as a JSON list), the contract and where it comes from.

    Raises:
        ExportError: If the outputs differ from the network's by more than 1e-4; no file is left then.
    """
    any_size = options.any_size
    if any_size and not product.is_dense:
        raise ExportError("images of any size are for segmentation: this network labels whole images of one size")
    if options.with_processing:
        return _export_processed(product, path, options)
    contract = Contract.of(product, any_size=any_size)
    try:
        write_onnx(
            product.image_network(),
            product.signature.input_shape,
            path,
            metadata=_metadata(product, contract),
            opset=options.opset,
            other_size=product.other_size() if any_size else None,
        )
    except OnnxExportError as error:
        raise ExportError(f"{path} was not written: {error}") from error
    compared = _kept_if_equal(path, product, (product.other_size(),) if any_size else ())
    return Exported("onnx", (path,), contract, snippet(product, path.name), compared)


def onnx_run(path: Path, n_threads: int = 1) -> Run:
    """Return the network of an ONNX file, run by onnxruntime on the CPU.

    Raises:
        ExportError: If onnxruntime cannot run it.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = n_threads
    settings.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"{path} cannot be run by onnxruntime {onnxruntime.__version__}: {error}") from error
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def snippet(product: Product, name: str) -> str:
    """Return code that labels an image by an ONNX file without processing."""
    height, width = product.signature.image_size
    mode = "L" if product.signature.in_channels == 1 else "RGB"
    return _SNIPPET.format(mode=mode, width=width, height=height, name=name)


def _kept_if_equal(path: Path, product: Product, sizes: tuple[tuple[int, int], ...]) -> tuple[Comparison, ...]:
    try:
        return compare(product, onnx_run(path), sizes=sizes)
    except ExportError as error:
        path.unlink(missing_ok=True)
        raise ExportError(f"{path} was not written: {error}") from error


def _metadata(product: Product, contract: Contract) -> dict[str, str]:
    """Return the texts of a file: keys of earlier releases first."""
    return {
        "class_names": json.dumps(list(product.class_names)),
        "input": "RGB or grey, 0 .. 1" if contract.dtype == "float32" else "RGB or grey, 0 .. 255",
        "contract": json.dumps(contract.to_mapping()),
        "normalization": json.dumps({"mean": product.normalization.mean, "std": product.normalization.std}),
        "scores": json.dumps(dict(product.scores)),
        **product.origin,
    }


class _Processed(nn.Module):
    """Takes images `(B, H, W, C)` uint8 of any size; gives classes and their probabilities."""

    def __init__(self, network: ImageNetwork, size: tuple[int, int], is_dense: bool) -> None:
        super().__init__()
        self.network = network
        self._size = size
        self._is_dense = is_dense

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = image.permute(0, 3, 1, 2).float() / 255
        resized = functional.interpolate(pixels, self._size, mode="bilinear", antialias=True)
        probabilities = self.network(resized).softmax(dim=1)
        if self._is_dense:
            probabilities = functional.interpolate(probabilities, image.shape[1:3], mode="bilinear")
        probability, label = probabilities.max(dim=1)
        return (label.to(torch.uint8) if self._is_dense else label), probability


def _export_processed(product: Product, path: Path, options: ExportOptions) -> Exported:
    """Write the network with resizing, normalisation and the choice of the class inside."""
    if product.is_dense and len(product.class_names) > 256:
        raise ExportError("a class map with processing inside holds at most 256 classes")
    height, width = product.signature.image_size
    n_channels = product.signature.in_channels
    model = _Processed(product.image_network(), (height, width), product.is_dense).eval()
    contract = Contract.with_processing(product)
    random = torch.Generator().manual_seed(0)
    sizes = ((2, height + 13, width + 7), (1, height, width), (_N_CHECKED, 2 * height + 1, width + 50))
    examples = [torch.randint(0, 256, (*size, n_channels), generator=random, dtype=torch.uint8) for size in sizes]
    try:
        written = write_traced(
            model,
            examples,
            path,
            dynamic={0: "batch", 1: "height", 2: "width"},
            input_name="image",
            output_names=processed_names(product.is_dense),
            metadata=_metadata(product, contract),
            opset=options.opset,
        )
    except OnnxExportError as error:
        raise ExportError(f"{path} was not written: {error}") from error
    checked = ", ".join(f"{size[1]} x {size[2]}" for size in sizes[1:])
    remark = f"compared with torch on noise of {checked}: probabilities within {written.max_difference:.1e}"
    mode = "L" if n_channels == 1 else "RGB"
    code = _PROCESSED_SNIPPET.format(
        mode=mode,
        name=path.name,
        first=processed_names(product.is_dense)[0],
        shape="1, *Image.open('IMAGE').size[::-1], -1",
    )
    return Exported("onnx", (path,), contract, code, (), (remark,))
