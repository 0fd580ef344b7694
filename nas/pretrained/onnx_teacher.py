"""A teacher that somebody else trained: any ONNX file, run by onnxruntime."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from latency.errors import TracingError
from latency.graph.onnx_file import load_onnx
from nas.errors import InputError

_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_ERRORS_ALONE = 3  # onnxruntime warns of each weight that an older exporter lists among the inputs, hundreds in all
_FLOATING = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
}


class OnnxTeacher(nn.Module):
    """The network of an ONNX file as a module of this run, on the CPU; it can't be trained.

    The file maps images, `(B, C, H, W)` and floating, to logits, its first output. Its batch may be of any size or of a
    fixed one. Images are scaled to 0 .. 1, as files of `nas export` take them, unless the teacher's section says
    otherwise.

    Args:
        in_channels: Of an image; the file is checked against it when it is opened.
        n_classes: Channels of the logits; likewise.
        seed: Not used: nothing is drawn.
        path: The file. It is not read before `open`.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        seed: int = 0,
        path: Path,
    ) -> None:
        super().__init__()
        self.path = path
        self._session: onnxruntime.InferenceSession | None = None

    @property
    def n_params(self) -> int:
        """The numbers in the file's floating-point constants: weights, and statistics that are not folded into them."""
        graph = _graph(self.path)
        return sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in _FLOATING)

    def open(self) -> None:
        """Read the file. Before this the module can't be called.

        Raises:
            InputError: If the file can't be read, or isn't one of a network that takes one batch of images.
        """
        _graph(self.path)  # of bounded size, or refused
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = _ERRORS_ALONE
        try:
            session = onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            inputs = [(value.name, value.type, list(value.shape)) for value in session.get_inputs()]
        except Exception as error:  # onnxruntime's exceptions have no common class
            raise InputError(f"{self.path} cannot be read as an ONNX file: {_first_line(error)}") from error
        if len(inputs) != 1 or inputs[0][1] not in _INPUT_TYPES or len(inputs[0][2]) != 4:
            found = ", ".join(f"{name}: {kind} {shape}" for name, kind, shape in inputs)
            raise InputError(f"{self.path} must take one floating-point tensor (B, C, H, W), it takes {found}")
        self._session = session

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)`, as the file takes them, to its first output, on the same device.

        Raises:
            InputError: If the network can't be run on images of this shape.
            RuntimeError: If the file was not opened.
        """
        if self._session is None:
            raise RuntimeError("open the file first")
        info = self._session.get_inputs()[0]
        self._check_sizes(info.shape[1:], images.shape[1:])
        array = images.cpu().float().contiguous().numpy().astype(_INPUT_TYPES[info.type])
        size = info.shape[0] if isinstance(info.shape[0], int) else len(array)
        try:
            outputs = [
                self._session.run(None, {info.name: _filled(array[start : start + size], size)})[0]
                for start in range(0, len(array), size)
            ]
        except Exception as error:
            shape = " x ".join(map(str, images.shape[1:]))
            raise InputError(f"{self.path} cannot be run on images of {shape}: {_first_line(error)}") from error
        logits = torch.from_numpy(np.concatenate(outputs)[: len(array)].astype(np.float32))
        return logits.to(images.device)

    def _check_sizes(self, expected: Sequence[int | str | None], found: Sequence[int]) -> None:
        """Compare the sizes of images with those of the file, where these are numbers."""
        if any(isinstance(size, int) and size != other for size, other in zip(expected, found, strict=True)):
            raise InputError(
                f"{self.path} takes {' x '.join(str(size or '?') for size in expected)}, the images are "
                f"{' x '.join(map(str, found))}: write the file for such images"
            )


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside an ONNX file that hold weights of it, in order of their names.

    Raises:
        InputError: If the file cannot be read, or names files elsewhere.
    """
    names = {
        entry.value
        for tensor in _tensors(_graph(path))
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise InputError(f"{path} must keep its weights beside it, it names the file {name!r}")
    return tuple(path.parent / name for name in sorted(names))


def _graph(path: Path) -> onnx.GraphProto:
    try:
        return load_onnx(path).graph
    except TracingError as error:
        reason = str(error).removeprefix(f"cannot read {path} as ONNX: ")
        raise InputError(f"{path} cannot be read as an ONNX file: {reason}") from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the constants of a graph and of the graphs within its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _filled(batch: np.ndarray, size: int) -> np.ndarray:
    """Return `batch` with its last row repeated up to `size` rows, which a file of a fixed batch needs."""
    return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
