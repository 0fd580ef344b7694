"""Writing files so that a reader, or the next start after a crash, never meets half a file."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

_N_SHOWN = 5  # of the weights that differ; there may be hundreds


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is renamed to `path`, else removed."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` atomically; what JSON does not know is written as text."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path, *beside: Path) -> str:
    """Return the hash of what is one thing in several files; of one file alone its `file_hash`."""
    if not beside:
        return file_hash(path)
    return hashlib.sha256("".join(map(file_hash, (path, *beside))).encode()).hexdigest()


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights and buffers of `model`, and texts by key, to `path`, a safetensors file, atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, dict(metadata or {}) or None)


def weights_metadata(path: Path) -> dict[str, str]:
    """Return the texts that were saved beside weights."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`.

    Raises:
        OSError: If the file cannot be read.
        RuntimeError: If its names or shapes are not the model's, naming them.
    """
    state: dict[str, torch.Tensor] = load_file(path)
    if differing := list(_differences(state, model.state_dict())):
        more = f"; and {len(differing) - _N_SHOWN} others" if len(differing) > _N_SHOWN else ""
        raise RuntimeError("; ".join(differing[:_N_SHOWN]) + more)
    model.load_state_dict(state)


def _differences(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Yield what differs between the names and shapes in a file and those of a model."""
    for name, tensor in expected.items():
        if name not in found:
            yield f"Missing key {name}"
        elif found[name].shape != tensor.shape:
            yield f"{name} has the shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    yield from (f"{name} is not of this model" for name in found if name not in expected)


def load_part(module: nn.Module, path: Path) -> None:
    """Load into `module` its weights from a safetensors file that may hold others too.

    Raises:
        OSError: If the file cannot be read.
        RuntimeError: If a weight is missing or has another shape, naming it.
    """
    state: dict[str, torch.Tensor] = load_file(path)
    module.load_state_dict({name: state[name] for name in module.state_dict().keys() & state.keys()})
