"""Shared artifacts (teachers, their outputs, decoded splits): files made once, found again by their cache key."""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from nas.errors import DamagedFileError
from nas.faults import blaming_machine
from nas.files import atomic_path, file_hash, remove_leftovers, write_json
from nas.store.checksums import checksum, damage

_log = logging.getLogger(__name__)


class ArtifactCache:
    """A folder of files named by their cache key: a hash of all inputs that determine their content.

    Several runs may share it: each artifact is made under a lock, written to the side and renamed, so
    that a file that is there was whole. Its checksum stands beside it: a file that does not agree with it any more is
    made again.

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
        if self._read_only and _are_whole(shared := tuple(self._read_only / name for name in names)):
            return shared
        return tuple(self.root / name for name in names)

    def with_content(self, kind: str, suffix: str, digest: str) -> Path | None:
        """Return the artifact of a kind whose `file_hash` is `digest`; `None` if none is."""
        folders = [self.root, *([self._read_only] if self._read_only else [])]
        files = (path for folder in folders for path in sorted(folder.glob(f"{kind}-*{suffix}")))
        return next((path for path in files if file_hash(path) == digest), None)

    def get(
        self,
        kind: str,
        depends_on: Mapping[str, Any],
        suffix: str,
        make: Callable[[Path], None],
        on_message: Callable[[str], None] = _log.warning,
    ) -> tuple[Path, bool]:
        """Return the artifact, made now if it is not there or damaged.

        Args:
            kind: Begins the file's name, for people who look into the folder.
            depends_on: All inputs that determine its content, as plain JSON values; stored next to it.
            suffix: Of the file's name, e.g. `".safetensors"`.
            make: Writes the content to the path that it is given.
            on_message: Called with a sentence if a damaged artifact is made again.

        Returns:
            Its path, and whether it was made by this call.

        Raises:
            DamagedFileError: If it is damaged and cannot be replaced here.
        """
        (path,), was_made = self.get_together((kind,), depends_on, suffix, make, on_message)
        return path, was_made

    def get_together(
        self,
        kinds: Sequence[str],
        depends_on: Mapping[str, Any],
        suffix: str,
        make: Callable[..., None],
        on_message: Callable[[str], None] = _log.warning,
    ) -> tuple[tuple[Path, ...], bool]:
        """Return artifacts that are made in one go: arguments as for `get`, `make` being given a path for each kind.

        Returns:
            Their paths, in the order of `kinds`, and whether they were made by this call.

        Raises:
            DamagedFileError: If one is damaged and cannot be replaced here.
        """
        paths = self.paths(kinds, depends_on, suffix)
        if _are_whole(paths):
            return paths, False
        with blaming_machine(f"{paths[0]} cannot be made", OSError), self._locked(paths):
            if _are_whole(paths):  # another process has made them meanwhile
                return paths, False
            for fault in filter(None, map(damage, paths)):
                on_message(f"{fault}; it is made again.")
            start = time.perf_counter()
            with contextlib.ExitStack() as stack:
                written = [stack.enter_context(atomic_path(path)) for path in paths]
                make(*written)
                for kind, path, file in zip(kinds, paths, written, strict=True):
                    content = {"kind": kind, "depends_on": depends_on, **checksum(file)}
                    write_json(path.with_suffix(".json"), content)
            self.seconds += time.perf_counter() - start
        return paths, True

    @contextlib.contextmanager
    def _locked(self, paths: Sequence[Path]) -> Iterator[None]:
        """Hold the lock of artifacts that are made together, their folder there and tidied up."""
        lock = FileLock(f"{paths[0]}.lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            if fault := next(filter(None, map(damage, paths)), None):
                raise DamagedFileError(f"{fault}, and it cannot be made again here: {error}") from error
            raise
        try:
            remove_leftovers(self.root)
            yield
        finally:
            lock.release()


def _are_whole(paths: Sequence[Path]) -> bool:
    return all(path.exists() and damage(path) is None for path in paths)
