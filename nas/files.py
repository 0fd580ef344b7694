"""Writing files so that a reader, or the next start after a crash, never meets half a file; reading foreign ones."""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.errors import InputError

_HOST = re.sub(r"[^\w-]", "-", platform.node()) or "unknown"
_TEMPORARY = re.compile(r"\..+\.(?P<process>\d+)@(?P<host>[\w-]+)(\.[\w.-]+)?")
_OLD_S = 86400.0  # from then on a temporary file is nobody's, whatever machine wrote it


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is renamed to `path`, else removed.

    The content is on the disk before the name is: a machine that loses power leaves the old file or the whole new one.
    """
    temporary = path.with_name(f"{temporary_name(path.stem)}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(stem: str) -> str:
    """Return the name of a file or folder that `remove_leftovers` removes once this process has ended."""
    return f".{stem}.{os.getpid()}@{_HOST}"


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary files and folders in `folder` whose processes were killed; return their names.

    Files of running processes stay. Whether a process of another machine runs cannot be known: its files stay for a
    day.
    """
    removed = []
    for path in folder.glob(".*@*"):
        if (match := _TEMPORARY.fullmatch(path.name)) and _is_abandoned(path, match):
            with contextlib.suppress(OSError):  # another process removed it, or nobody may: it is in nobody's way
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path.name)
    return sorted(removed)


def _is_abandoned(path: Path, name: re.Match[str]) -> bool:
    if name["host"] == _HOST:
        try:
            os.kill(int(name["process"]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass
    try:
        return time.time() - path.stat().st_mtime > _OLD_S
    except OSError:
        return False


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


def read_foreign(path: Path, at_most: int) -> bytes:
    """Return the content of a file that somebody else wrote.

    Neither a pipe that nobody writes to nor a device without an end is read.

    Args:
        path: The file.
        at_most: Its largest size in bytes.

    Raises:
        FileNotFoundError: If there is none.
        InputError: If it is no regular file, too large, or cannot be read.
    """
    try:
        content = _content(path, at_most)
    except (FileNotFoundError, InputError):
        raise
    except (OSError, ValueError) as error:  # the latter for a path that can be none
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > at_most:  # it has grown since
        raise InputError(_too_large(path, len(content), at_most))
    return content


def _content(path: Path, at_most: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait
    try:
        _require_regular(path, os.fstat(descriptor), at_most)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(at_most + 1)
    finally:
        os.close(descriptor)


def require_regular(path: Path, at_most: int) -> None:
    """Check a file that a library is about to open: its kind and its size.

    Raises:
        FileNotFoundError: If there is none.
        InputError: If it is no regular file, or larger than `at_most` bytes.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    _require_regular(path, status, at_most)


def _require_regular(path: Path, status: os.stat_result, at_most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: must be a regular file, it is {_kind(status.st_mode)}")
    if status.st_size > at_most:
        raise InputError(_too_large(path, status.st_size, at_most))


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def _too_large(path: Path, size: int, at_most: int) -> str:
    return f"{path}: must have at most {at_most / 2**20:,.4g} MiB, it has {size / 2**20:,.4g}"
