"""What all formats share: their options, and what they hand back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency.devices.onnx_device import OnnxDevice
from nas.errors import ExportError
from nas.exporters.contract import Contract
from nas.exporters.product import Product
from nas.exporters.verification import Comparison


@dataclass(frozen=True)
class ExportOptions:
    """How a network is exported.

    Attributes:
        opset: The version of ONNX's operators; `None` for the exporter's own.
        any_size: Whether a segmentation network takes images of any size.
        with_processing: Whether resizing, normalisation and the choice of the class are part of the graph.
        max_drop: The largest fall of a score by quantisation that is accepted; `None` for any.
        device: Where a quantised network is timed.
    """

    opset: int | None = None
    any_size: bool = False
    with_processing: bool = False
    max_drop: float | None = None
    device: OnnxDevice = field(default_factory=OnnxDevice)

    def refuse_those_of_onnx(self) -> None:
        """Refuse what only ONNX files can be.

        Raises:
            ExportError: Naming the options.
        """
        if self.opset is not None or self.any_size or self.with_processing:
            raise ExportError("--opset, --any-size and --with-processing are for --format onnx: leave them out")


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        format: Its name.
        paths: The files; the first is the one to open.
        contract: What goes in and comes out.
        snippet: Python code that uses it.
        comparisons: What was compared with torch.
        remarks: What else is to be said of it, a line each.
        facts: The same as data, such as scores before and after quantisation.
    """

    format: str
    paths: tuple[Path, ...]
    contract: Contract
    snippet: str
    comparisons: tuple[Comparison, ...]
    remarks: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


Export = Callable[[Product, Path, ExportOptions], Exported]
"""Writes a product to a path: a file, or a folder for formats of several files. Nothing is left if it fails.

Raises `ExportError`."""
