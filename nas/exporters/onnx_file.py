"""A trained network as one ONNX file that takes plain images."""

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
    """A network with the normalisation it was trained with put before it.

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
    """Write a trained network as ONNX, with a batch of any size, checked against torch.

    The file's input is `image`, `(B, C, H, W)` float32 in 0 .. 1; its output `logits`. Its metadata hold the class
    names (a JSON list) and what is given.

    Raises:
        ExportError: If the file would not compute what the network does within 1e-4; there is none then.
    """
    model = ImageNetwork(network, normalization).eval()
    texts = {"class_names": json.dumps(list(class_names)), "input": "RGB or grey, 0 .. 1", **metadata}
    try:
        return write_onnx(model, signature.input_shape, path, metadata=texts)
    except OnnxExportError as error:
        raise ExportError(f"{path} was not written: {error}") from error
