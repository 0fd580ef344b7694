"""Trained networks as files for other runtimes, by format; each is compared with torch before it is kept."""

from nas.exporters.exported_program import export_program
from nas.exporters.formats import Export, Exported, ExportOptions
from nas.exporters.int8 import export_int8
from nas.exporters.onnx_file import export_onnx
from nas.exporters.product import DataAtHand, ImageNetwork, Product
from nas.exporters.python_source import export_python
from nas.exporters.weights_folder import export_weights

EXPORTERS: dict[str, Export] = {
    "onnx": export_onnx,
    "onnx_int8": export_int8,
    "exported_program": export_program,
    "safetensors": export_weights,
    "python": export_python,
}

SUFFIXES = {"onnx": ".onnx", "onnx_int8": ".int8.onnx", "exported_program": ".pt2", "safetensors": "", "python": ".py"}
"""How the path of a format ends; that of a folder has no suffix."""

__all__ = [
    "EXPORTERS",
    "SUFFIXES",
    "DataAtHand",
    "ExportOptions",
    "Exported",
    "ImageNetwork",
    "Product",
    "export_onnx",
]
