"""Shared artifacts (teachers, their outputs, decoded splits): files made once, found again by their cache key."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from nas.faults import blaming_machine
from nas.files import atomic_path, write_json


class ArtifactCache:
    """A folder of files named by their cache key: a hash of all inputs that determine their content.

    Several runs may share it: each artifact is made under a lock, written to the side and renamed, so
    that a file that is there is whole.

    Args:
        root: The folder; made when the first artifact is.
        read_only: A further folder of artifacts, which are used where they are there; nothing is written to it.

    Attributes:
        seconds: Spent on making artifacts by this object.
    """

    def __init__(self, root: Path, read_only: Path | None = None) -> None:
        self.root = root
        self.seconds = 0.0
        self._read_only = read_only

    def path(self, kind: str, depends_on: Mapping[str, Any], suffix: str) -> Path:
        """Return where the artifact is, or would be."""
        return self.paths((kind,), depends_on, suffix)[0]

    def paths(self, kinds: Sequence[str], depends_on: Mapping[str, Any], suffix: str) -> tuple[Path, ...]:
        """Return where artifacts that are made together are, or would be: all in one folder."""
        content = json.dumps(depends_on, sort_keys=True, default=str)
        keys = (hashlib.sha256(f"{kind}:{content}".encode()).hexdigest() for kind in kinds)
        names = [f"{kind}-{key[:16]}{suffix}" for kind, key in zip(kinds, keys, strict=True)]
        if self._read_only and all((self._read_only / name).exists() for name in names):
            return tuple(self._read_only / name for name in names)
        return tuple(self.root / name for name in names)

    def get(
        self, kind: str, depends_on: Mapping[str, Any], suffix: str, make: Callable[[Path], None]
    ) -> tuple[Path, bool]:
        """Return the artifact, made now if it is not there.

        Args:
            kind: Begins the file's name, for people who look into the folder.
            depends_on: All inputs that determine its content, as plain JSON values; stored next to it.
            suffix: Of the file's name, e.g. `".safetensors"`.
            make: Writes the content to the path that it is given.

        Returns:
            Its path, and whether it was made by this call.
        """
        (path,), was_made = self.get_together((kind,), depends_on, suffix, make)
        return path, was_made

    def get_together(
        self, kinds: Sequence[str], depends_on: Mapping[str, Any], suffix: str, make: Callable[..., None]
    ) -> tuple[tuple[Path, ...], bool]:
        """Return artifacts that are made in one go: arguments as for `get`, `make` being given a path for each kind.

        Returns:
            Their paths, in the order of `kinds`, and whether they were made by this call.
        """
        paths = self.paths(kinds, depends_on, suffix)
        if all(path.exists() for path in paths):
            return paths, False
        with contextlib.ExitStack() as stack:
            stack.enter_context(blaming_machine(f"{paths[0]} cannot be made", OSError))
            self.root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{paths[0]}.lock"))
            if all(path.exists() for path in paths):
                return paths, False
            for kind, path in zip(kinds, paths, strict=True):
                for leftover in self.root.glob(f".{path.stem}.*{suffix}"):
                    leftover.unlink()  # of a process that was killed while it wrote
                write_json(path.with_suffix(".json"), {"kind": kind, "depends_on": depends_on})
            start = time.perf_counter()
            make(*(stack.enter_context(atomic_path(path)) for path in paths))
            self.seconds += time.perf_counter() - start
        return paths, True
