"""The operators of a model and their tensors, from a torch model or an ONNX file. All costs are read from them."""
