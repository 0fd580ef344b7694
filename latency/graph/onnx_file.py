"""The one place where foreign bytes become an ONNX model: bounded before they are parsed, and refused in our words."""

import contextlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import inliner

from latency.errors import TracingError

MAX_BYTES = 512 << 20  # without weights that lie beside the file
_MAX_INLINED_NODES = 200_000


@contextlib.contextmanager
def onnx_boundary(path: Path | str) -> Iterator[None]:
    """Turn whatever ONNX's library raises over a file's content into `TracingError`."""
    try:
        yield
    except TracingError as fault:
        raise TracingError(f"cannot trace {path}: {fault}") from fault
    except Exception as fault:
        raise TracingError(f"cannot read {path} as ONNX: {_short(fault)}") from fault


def check_onnx_file(path: Path | str) -> None:
    """Check that `path` is a regular file of a size that is read.

    Raises:
        TracingError: If it is not.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as fault:
        raise TracingError(f"cannot read {path} as ONNX: {fault}") from fault
    if not stat.S_ISREG(status.st_mode):
        raise TracingError(f"cannot read {path} as ONNX: it is no regular file")
    if status.st_size > MAX_BYTES:
        raise TracingError(
            f"cannot read {path} as ONNX: it has {status.st_size >> 20:,} MiB, at most {MAX_BYTES >> 20} are read: "
            "save its weights beside it, as external data"
        )


def load_onnx(path: Path | str) -> onnx.ModelProto:
    """Return an ONNX file's model, without weights that lie beside it.

    Raises:
        TracingError: If there is no such file, or it is none.
    """
    check_onnx_file(path)
    with onnx_boundary(path):
        return onnx.load(path, load_external_data=False)


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with its functions written out.

    Raises:
        TracingError: If they call each other in a circle, or so often that the result would be huge.
    """
    if not model.functions:
        return model
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Sequence[onnx.NodeProto], open_calls: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in open_calls or len(open_calls) > len(bodies):
                raise TracingError(f"its function {node.op_type!r} calls itself")
            if key in bodies and key not in sizes:
                sizes[key] = size(bodies[key], (*open_calls, key))
            total += sizes.get(key, 1)
            total += sum(size(graph.node, open_calls) for graph in _bodies(node))
        return total

    if (total := size(model.graph.node, ())) > _MAX_INLINED_NODES:
        raise TracingError(
            f"its functions written out are {total:,.3g} operators, at most {_MAX_INLINED_NODES:,} are read"
        )
    return inliner.inline_local_functions(model)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from ((attribute.g,) if attribute.HasField("g") else ())
        yield from attribute.graphs


def _short(fault: Exception) -> str:
    text = str(fault).strip().split("\n", 1)[0]
    return text[:500] or type(fault).__name__
