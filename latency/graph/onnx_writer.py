"""Writes a model as an ONNX file, and only if the file computes what the model does.

By torch's exporter, for users, which takes seconds; or from the operator graph, to be measured, in a tenth of one.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from latency.checks import require_eval_mode
from latency.errors import OnnxExportError, TracingError
from latency.graph.to_onnx.nodes import TRACED_BATCH
from latency.graph.to_onnx.translation import onnx_from_graph
from latency.graph.tracer import graph_from_torch
from latency.inference import example_input, placed
from latency.sizes import require_input_shape

_CHECKED_BATCHES = (1, 3)
_TOLERANCE = 1e-4
_MAX_DISAGREEMENT = 1e-4  # share of whole numbers that may differ: classes that are level within rounding
_Expected = tuple[tuple[np.ndarray, tuple[np.ndarray, ...]], ...]


@dataclass(frozen=True)
class OnnxFile:
    """What was written.

    Attributes:
        path: The file.
        n_bytes: Its size.
        opset_version: Of ONNX's own operators.
        max_difference: The largest between torch's and onnxruntime's outputs, relative to
            `max(1, largest absolute output)`.
        untranslated: Why torch's exporter wrote a file that is only to be measured; empty where it did not.
    """

    path: Path
    n_bytes: int
    opset_version: int
    max_difference: float
    untranslated: str = ""


def write_onnx(
    model: nn.Module,
    input_shape: tuple[int, ...],
    path: Path,
    *,
    example_batch: int = 2,
    input_name: str = "image",
    output_name: str = "logits",
    metadata: Mapping[str, str] | None = None,
    tolerance: float = _TOLERANCE,
    opset: int | None = None,
    other_size: tuple[int, int] | None = None,
) -> OnnxFile:
    """Write `model` to one file, with a batch of any size, after checking it.

    The file appears under its name only if onnx's full check passes and onnxruntime's outputs for random
    images in batches of 1 and 3 differ from torch's by at most `tolerance * max(1, largest absolute output)`.
    The exporter's own notes (places in source files) are left out of it. Takes seconds.

    Args:
        model: In eval mode, with one tensor in and one out. Left as it was.
        input_shape: `(C, H, W)`, without the batch.
        path: Where to write; its folder is made if needed; a file there is replaced.
        example_batch: The batch that is traced; exporters take a 1 for a constant.
        input_name: Of the graph's input.
        output_name: Of the graph's output.
        metadata: Texts to store in the file by key.
        tolerance: See above.
        opset: The version of ONNX's operators; `None` for the exporter's own.
        other_size: Height and width of images that are checked too: the file then takes images of any size.

    Raises:
        ValueError: If `model` is in train mode, or a size is not positive.
        OnnxExportError: If the model has no valid, equal graph. There is no new file then.
    """
    shape = require_input_shape(input_shape)
    sides = {0: "batch"} | ({2: "height", 3: "width"} if other_size else {})
    shapes = [(batch, *shape) for batch in _CHECKED_BATCHES]
    shapes += [(1, shape[0], *other_size)] if other_size else []
    examples = [
        example_input(sizes, torch.device("cpu"), torch.float32) for sizes in ((example_batch, *shape), *shapes)
    ]
    return write_traced(
        model,
        examples,
        path,
        dynamic=sides,
        input_name=input_name,
        output_names=(output_name,),
        metadata=metadata,
        tolerance=tolerance,
        opset=opset,
    )


def write_traced(
    model: nn.Module,
    examples: Sequence[torch.Tensor],
    path: Path,
    *,
    dynamic: Mapping[int, str],
    input_name: str,
    output_names: Sequence[str],
    metadata: Mapping[str, str] | None = None,
    tolerance: float = _TOLERANCE,
    opset: int | None = None,
) -> OnnxFile:
    """Write `model` to one file as `write_onnx` does, for inputs and outputs of any kind.

    Args:
        model: In eval mode, with one tensor in; it returns a tensor or a tuple of them. Left as it was.
        examples: The first is traced; what the model returns for the others is compared. Whole numbers, such as
            classes, must agree in all but one of 10,000.
        path: Where to write.
        dynamic: The input's dimensions that may have any size, with their names.
        input_name: Of the graph's input.
        output_names: Of its outputs.
        metadata: Texts to store in the file by key.
        tolerance: Of floating-point outputs, as for `write_onnx`.
        opset: As for `write_onnx`.

    Raises:
        ValueError: If `model` is in train mode.
        OnnxExportError: As by `write_onnx`.
    """
    require_eval_mode(model)
    model = placed(model, torch.device("cpu"), torch.float32, channels_last=False)
    shape = tuple(examples[0].shape[1:])
    with _failures_explained(model, shape):
        expected = tuple(_expected(model, example, len(output_names)) for example in examples[1:])
        graph = _export(model, examples[0], dynamic, input_name, output_names, opset)
        onnx.helper.set_model_props(graph, dict(metadata or {}))
        return _write_checked(graph, expected, path, tolerance)


def write_onnx_to_measure(model: nn.Module, input_shape: tuple[int, ...], path: Path) -> OnnxFile:
    """Write `model` to a file whose latency is that of the file `write_onnx` writes, in a tenth of a second.

    From the operators of `latency.graph`, by the translations of `latency.graph.to_onnx`, and checked like the other
    one. Where an operator has no translation or the check fails, torch's exporter writes the file.

    Args:
        model: In eval mode, with one tensor in and one out. Left as it was.
        input_shape: `(C, H, W)`, without the batch, which may be of any size.
        path: Where to write.

    Raises:
        ValueError: If `model` is in train mode, or a size is not positive.
        OnnxExportError: If the model has no valid, equal graph. There is no new file then.
    """
    model, shape, expected = _prepared(model, input_shape)
    try:
        with _failures_explained(model, shape):
            graph = onnx_from_graph(graph_from_torch(model, shape, batch_size=TRACED_BATCH), model)
            return _write_checked(graph, expected, path, _TOLERANCE)
    except (OnnxExportError, TracingError) as fault:
        reason = str(fault)
    return replace(write_onnx(model, shape, path), untranslated=reason)


def _prepared(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...], _Expected]:
    """Return the model where torch computes what is expected, the shape, and images with the model's outputs."""
    require_eval_mode(model)
    shape = require_input_shape(input_shape)
    model = placed(model, torch.device("cpu"), torch.float32, channels_last=False)
    images = [example_input((batch, *shape), torch.device("cpu"), torch.float32) for batch in _CHECKED_BATCHES]
    with _failures_explained(model, shape):
        return model, shape, tuple(_expected(model, image) for image in images)


@contextmanager
def _failures_explained(model: nn.Module, shape: tuple[int, ...]) -> Iterator[None]:
    try:
        yield
    except (OnnxExportError, TracingError, OSError):
        raise
    except Exception as fault:
        raise OnnxExportError(
            f"cannot write {type(model).__name__} as ONNX for images of shape {shape}: {_root_cause(fault)}"
        ) from fault


def _write_checked(graph: onnx.ModelProto, expected: _Expected, path: Path, tolerance: float) -> OnnxFile:
    """Give a file its name if it is valid and computes what is expected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        onnx.save(graph, draft)
        onnx.checker.check_model(draft, full_check=True)
        difference = _largest_difference(draft, expected)
        if not difference <= tolerance:
            raise OnnxExportError(
                f"onnxruntime's output differs from torch's by {difference:.3g}, relative to the output's "
                f"scale; at most {tolerance:g} is allowed"
            )
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return OnnxFile(path, path.stat().st_size, _opset_of(graph), difference)


def _export(
    model: nn.Module,
    example: torch.Tensor,
    dynamic: Mapping[int, str],
    input_name: str,
    output_names: Sequence[str],
    opset: int | None,
) -> onnx.ModelProto:
    with _quiet():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[input_name],
            output_names=list(output_names),
            opset_version=opset,
            dynamic_shapes=(dict(dynamic),),
        )
    assert program is not None  # noqa: S101 - the exporter returns a program when dynamo is true
    graph: onnx.ModelProto = program.model_proto
    found = _opset_of(graph)
    if opset is not None and found != opset:
        raise OnnxExportError(f"opset {opset} is not to be had for this network, the exporter gives {found}")
    _drop_notes(graph)
    return graph


def _opset_of(graph: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in graph.opset_import if entry.domain == ""))


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns of its own use of deprecated functions and of libraries that are not installed, and
    # prints the graph where it fails; what is wrong with the model comes as an exception.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _drop_notes(model: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces, which name folders of the machine that exported."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    model.doc_string = ""
    del model.metadata_props[:]


def _expected(model: nn.Module, images: torch.Tensor, n_outputs: int = 1) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return images and the model's outputs for them."""
    with torch.inference_mode():
        output = model(images)
    outputs = output if n_outputs > 1 else (output,)
    if not all(isinstance(tensor, torch.Tensor) for tensor in outputs):
        raise OnnxExportError(f"the model must return one tensor, got a {type(output).__name__}")
    if not all(tensor.isfinite().all() for tensor in outputs):
        raise OnnxExportError("the model's output for random images holds NaN or infinity")
    return images.numpy(), tuple(tensor.numpy() for tensor in outputs)


def _largest_difference(path: Path, expected: _Expected) -> float:
    """Return the largest difference of the file's outputs, each relative to `max(1, largest absolute output)`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # waiting threads of onnxruntime spin
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    differences = [0.0]
    for images, outputs in expected:
        for actual, output in zip(session.run(None, {name: images}), outputs, strict=True):
            if actual.shape != output.shape:
                raise OnnxExportError(f"onnxruntime returns shape {actual.shape} where torch returns {output.shape}")
            if np.issubdtype(output.dtype, np.integer):
                _check_agreement(actual, output)
            else:
                scale = max(1.0, float(np.abs(output).max()))
                differences.append(float(np.abs(actual - output).max() / scale))
    return max(differences)


def _check_agreement(actual: np.ndarray, expected: np.ndarray) -> None:
    share = float((actual != expected).mean())
    if share > _MAX_DISAGREEMENT:
        raise OnnxExportError(
            f"{share:.2%} of onnxruntime's classes are not torch's; at most {_MAX_DISAGREEMENT:.2%} may differ"
        )


def _root_cause(fault: BaseException) -> BaseException:
    # The exporter wraps what went wrong in a page of advice on debugging the exporter.
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return fault
