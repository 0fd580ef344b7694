"""A trained network as one ONNX file that takes images without normalisation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from latency.errors import OnnxExportError
from latency.graph.onnx_writer import OnnxFile, write_onnx
from nas.data.normalization import Normalization
from nas.errors import ExportError
from nas.evaluation.base import ModelSignature


class ImageNetwork(nn.Module):
    """A network behind the normalisation that it was trained with.

    Maps images `(B, C, H, W)`, float32 in 0 .. 1, to the network's logits.
    """

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of `image`."""
        logits: torch.Tensor = self.network((image - self.mean) / self.std)
        return logits


def export_onnx(
    network: nn.Module,
    path: Path,
    *,
    signature: ModelSignature,
    normalization: Normalization,
    class_names: Sequence[str],
    metadata: Mapping[str, str],
) -> OnnxFile:
    """Write a trained network as ONNX with a dynamic batch size, and check its outputs against torch's.

    The file's input is `image`, `(B, C, H, W)` float32 in 0 .. 1; its output is `logits`. Its metadata hold the class
    names (as a JSON list) and the given texts.

    Raises:
        ExportError: If the outputs differ from the network's by more than 1e-4; no file is left then.
    """
    model = ImageNetwork(network, normalization).eval()
    texts = {"class_names": json.dumps(list(class_names)), "input": "RGB or grey, 0 .. 1", **metadata}
    try:
        return write_onnx(model, signature.input_shape, path, metadata=texts)
    except OnnxExportError as error:
        raise ExportError(f"{path} was not written: {error}") from error
