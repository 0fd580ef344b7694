"""Checksums of shared artifacts, kept beside each: what was written is compared with what is read."""

import json
from pathlib import Path
from typing import Any

from nas.files import file_hash

_ALWAYS_READ_BYTES = 64 << 20  # 0.15 s; larger files are read whole only if their time of change says so
_checked: dict[Path, tuple[int, int]] = {}  # size and time of change of what this process found to be whole


def checksum(path: Path) -> dict[str, Any]:
    """Return what is stored of a file that was just written."""
    status = path.stat()
    return {"size": status.st_size, "sha256": file_hash(path), "mtime_ns": status.st_mtime_ns}


def damage(path: Path, *, thoroughly: bool = False) -> str | None:
    """Return what is wrong with an artifact, as a clause that names it; `None` if it is whole.

    One that is not there is not damaged, nor is one of a release that kept no checksums. A process reads each file
    once; one of more than 64 MiB not even once while its size and its time of change are those that it was written
    with.

    Args:
        path: The artifact.
        thoroughly: Read it whatever was found before.
    """
    stored = _stored(path) if path.exists() else {}
    if stored is None:
        return f"{path} is damaged: {path.with_suffix('.json').name} beside it cannot be read"
    if "sha256" not in stored:
        return None
    status = path.stat()
    if status.st_size != stored.get("size"):
        return f"{path} is damaged: it has {status.st_size:,} bytes, {stored.get('size')} were written"
    stamp = (status.st_size, status.st_mtime_ns)
    is_as_written = status.st_size > _ALWAYS_READ_BYTES and status.st_mtime_ns == stored.get("mtime_ns")
    is_known = not thoroughly and (_checked.get(path) == stamp or is_as_written)
    if not is_known and file_hash(path) != stored["sha256"]:
        return f"{path} is damaged: its content is not what was written"
    _checked[path] = stamp
    return None


def _stored(path: Path) -> dict[str, Any] | None:
    """Return what stands beside an artifact: nothing if there is no such file, `None` if it cannot be read."""
    beside = path.with_suffix(".json")
    try:
        stored = json.loads(beside.read_bytes()) if beside.exists() else {}
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None
