"""Writing files so that a reader, or the next start after a crash, never meets half a file."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn


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


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights and buffers of `model` to `path`, a safetensors file, atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`.

    Raises:
        OSError: If the file cannot be read.
        RuntimeError: If its names or shapes are not the model's, naming them.
    """
    state: dict[str, torch.Tensor] = load_file(path)
    model.load_state_dict(state)


def load_part(module: nn.Module, path: Path) -> None:
    """Load into `module` its weights from a safetensors file that may hold others too.

    Raises:
        OSError: If the file cannot be read.
        RuntimeError: If a weight is missing or has another shape, naming it.
    """
    state: dict[str, torch.Tensor] = load_file(path)
    module.load_state_dict({name: state[name] for name in module.state_dict().keys() & state.keys()})
