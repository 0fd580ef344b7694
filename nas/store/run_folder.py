"""The folder of one run: its configuration, weights and files, its lock and its store."""

from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from nas.errors import InputError, RunFolderError
from nas.faults import blaming_machine
from nas.files import atomic_path, remove_leftovers, write_text
from nas.store.artifacts import ArtifactCache
from nas.store.run_store import RunStore
from nas.values.records import is_candidate_id

_STORE = "store.sqlite"
_LOCK = ".lock"


_FOLDERS = ("weights", "plots", "exports")


class RunFolder:
    """The folder of one run.

    Attributes:
        path: The folder.
        store: Its facts.
        artifacts: Files that its trainings share with those of all runs in the same parent folder.

    Use `write` or `read` to get one; close it, or use it as a context manager.
    """

    def __init__(
        self, path: Path, store: RunStore, lock: FileLock | None = None, artifacts: ArtifactCache | None = None
    ) -> None:
        self.path = path
        self.store = store
        self.artifacts = artifacts or ArtifactCache(path.parent / "artifacts")
        self._lock = lock

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Return whether `path` holds a run."""
        return (path / _STORE).exists()

    @classmethod
    def write(cls, path: Path, artifacts: ArtifactCache | None = None) -> Self:
        """Open a run for writing, its folder made if there is none. Killed at any moment, the store is whole.

        Args:
            path: The folder.
            artifacts: By default those in the same parent folder.

        Raises:
            RunFolderError: If there can be no such folder, it holds other files, or another process writes to it.
        """
        if path.is_dir() and not cls.exists(path) and (others := _other_files(path)):
            raise RunFolderError(f"{path} is no folder of a run and holds other files: {', '.join(others[:5])}")
        try:
            for name in _FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"{path}: the folder of a run cannot be made here: {error}") from error
        lock = _locked(path)
        try:
            for place in (path, *(path / name for name in _FOLDERS), path.parent, path.parent / "artifacts"):
                remove_leftovers(place)
            file = path / _STORE
            store = RunStore(file) if file.exists() else _new_store(file)
            store.watch((path, path / "weights", path / _LOCK))
        except BaseException:
            lock.release()
            raise
        return cls(path, store, lock, artifacts)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open an existing run for reading; it may be running meanwhile.

        Raises:
            RunFolderError: If there is none.
        """
        cls._require(path)
        return cls(path, RunStore(path / _STORE, read_only=True))

    @staticmethod
    def is_in_use(path: Path) -> bool:
        """Return whether a process is writing to the run in `path`."""
        lock = path / _LOCK
        try:
            if lock.exists():
                FileLock(lock).acquire(timeout=0).lock.release()
        except Timeout:
            return True
        except OSError:
            pass  # a folder where nothing can be written has no writer either
        return False

    @classmethod
    def _require(cls, path: Path) -> None:
        if not cls.exists(path):
            raise RunFolderError(f"{path} is not the folder of a run: it holds no store.sqlite")

    @property
    def has_begun(self) -> bool:
        """Whether any network was asked for; before that, the run can still become another."""
        return self.store.n_asked > 0

    def start_over(self) -> None:
        """Forget every fact of a run that has not begun: it may have been another one's start."""
        self.store.forget_facts()

    def set_configuration(self, text: str) -> None:
        """Keep the run's configuration, YAML, complete with defaults.

        Raises:
            MachineError: If it cannot be written.
        """
        path = self.path / "config.yaml"
        with blaming_machine(f"{path} cannot be written"):
            write_text(path, text)

    def check_fact(self, key: str, value: str) -> None:
        """Check what every training rests on against the stored fact: records under different ones don't compare.

        Raises:
            InputError: If the run was started with another value.
        """
        stored = self.store.fact(key)
        if stored is None:
            self.store.set_fact(key, value)
        elif stored != value:
            raise InputError(
                f"{self.path}: {key.replace('_', ' ')} is not what this run was started with "
                f"({stored[:12]} then, {value[:12]} now); restore it, or start another run"
            )

    def weights(self, candidate: str, training: str = "quick") -> Path:
        """Return where a candidate's weights are kept, by training: `"quick"` or `"retrained"`."""
        return weights_path(self.path, candidate, training)

    def close(self) -> None:
        """Close the store and let others write."""
        try:
            self.store.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _new_store(path: Path) -> RunStore:
    """Make a store that is whole from the moment at which it has its name."""
    with atomic_path(path) as temporary:
        RunStore(temporary).close()
    return RunStore(path)


def _other_files(path: Path) -> list[str]:
    """Return the files in `path` that are not ours; a run killed at its start leaves empty folders."""
    return sorted(entry.name for entry in path.iterdir() if entry.name not in _FOLDERS and entry.name[0] != ".")


def weights_path(run: Path, candidate: str, training: str = "quick") -> Path:
    """Return where the run in folder `run` keeps a candidate's weights; as `RunFolder.weights`."""
    if not is_candidate_id(candidate):
        raise RunFolderError(f"{run}: {candidate[:80]!r} is no id of a candidate")
    return run / "weights" / f"{candidate}.{training}.safetensors"


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(f"{path} is in use: another process is writing to this run") from None
    return lock
