"""Translates an operator graph of torch to ONNX: quicker than torch's exporter, for fixed shapes."""
