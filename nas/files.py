"""Writing files so that a reader, or the next start after a crash, never meets half a file."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


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
