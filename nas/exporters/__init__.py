"""Trained networks as files for other runtimes, by format."""

from nas.exporters.onnx_file import export_onnx

EXPORTERS = {"onnx": export_onnx}

__all__ = ["EXPORTERS", "export_onnx"]
