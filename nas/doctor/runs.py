"""The integrity of a run: its store, its configuration, its weights, and the artifacts beside it."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from nas.config import load_config
from nas.doctor.findings import Finding, Health, absent, broken, ok
from nas.errors import ConfigurationError, InputError
from nas.store.checksums import damage
from nas.store.run import Run
from nas.store.run_folder import RunFolder, weights_path
from nas.torch_tools import read_weights
from nas.values.records import Record

_N_SHOWN = 5


def look_at_run(path: Path) -> Iterator[Finding]:
    """Yield what is found of a run's files, every byte of them read.

    Args:
        path: The run's folder; it may be running meanwhile.

    Raises:
        RunFolderError: If it is none.
    """
    if not RunFolder.exists(path):
        RunFolder.read(path)  # says why
    finding, run = _store(path)
    yield finding
    if run is not None:
        yield _progress(run)
        yield from _weights(run)
    yield _configuration(path)
    yield from _artifacts(path.parent / "artifacts")


def _store(path: Path) -> tuple[Finding, Run | None]:
    """Look at the file, then at what it says; return the run, if it can be read."""
    name, remedy = "store", f"keep a copy of {path / 'store.sqlite'}; what a backup of it holds can be resumed"
    try:
        database = sqlite3.connect(f"{(path / 'store.sqlite').absolute().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(database):
            faults = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
            n_orphans = len(database.execute("PRAGMA foreign_key_check").fetchall())
    except sqlite3.Error as error:
        return broken(name, f"cannot be read: {error}", remedy), None
    try:
        run = Run.load(path)
    except InputError as error:
        return broken(name, str(error), remedy), None
    except Exception as error:  # noqa: BLE001 - of contents that nobody foresaw
        return broken(name, f"its contents make no sense: {type(error).__name__}: {error}", remedy), None
    if faults != ["ok"]:
        return broken(name, "; ".join(faults), remedy), run
    if n_orphans:
        return broken(name, f"{n_orphans} of its rows are of candidates that were never asked for", remedy), run
    counts = ", ".join(f"{n} {state}" for state, n in run.counts().items())
    return ok(name, f"sound; {len(run.records)} candidates{': ' * bool(counts)}{counts}"), run


def _progress(run: Run) -> Finding:
    if RunFolder.is_in_use(run.path):
        return ok("progress", "a process is writing to it now")
    if run.finished_size:
        return ok("progress", "finished")
    return absent("progress", "unfinished, and nobody is writing to it", "nas search CONFIG --resume goes on with it")


def _weights(run: Run) -> Iterator[Finding]:
    """Read the weights of all candidates that have some; those of the front must."""
    kept, faults = 0, []
    for record in (*run.records, *run.references):
        for training in ("quick", "retrained"):
            path = weights_path(run.path, record.id, training)
            if path.exists():
                kept += 1
                faults += _faults_of_weights(path)
    if not kept:
        yield absent("weights", "none are kept: this run trains no networks, or has trained none yet")
        return
    faults += [f"{weights_path(run.path, r.id)} is missing" for r in run.front if not _has_weights(run, r)]
    remedy = f"train these candidates again: nas retrain {run.path} --candidate ID --epochs N"
    yield _summary("weights", f"{kept} files sound", faults, remedy)


def _has_weights(run: Run, record: Record) -> bool:
    return any(weights_path(run.path, record.id, training).exists() for training in ("quick", "retrained"))


def _faults_of_weights(path: Path) -> list[str]:
    try:
        read_weights(path)
    except (OSError, InputError) as error:
        return [str(error)]
    return []


def _configuration(path: Path) -> Finding:
    try:
        load_config(path / "config.yaml")
    except ConfigurationError as error:
        text = error.faults[0]
        if "trust" in text:
            return ok("configuration", "names Python code, which was not imported")
        return broken("configuration", text, f"copy the configuration of the run to {path / 'config.yaml'}")
    except Exception as error:  # noqa: BLE001 - data that is gone, say, which the configuration only names
        return broken("configuration", f"{type(error).__name__}: {error}", "bring back what it names")
    return ok("configuration", "sound")


def _artifacts(folder: Path) -> Iterator[Finding]:
    files = sorted(path for path in folder.glob("*") if path.suffix in (".npy", ".safetensors"))
    if not files:
        yield absent("artifacts", f"none in {folder}")
        return
    faults = [fault for path in files if (fault := damage(path, thoroughly=True))]
    n_without = sum(not path.with_suffix(".json").exists() for path in files)
    note = f", {n_without} of them without a checksum" if n_without else ""
    yield _summary(
        "artifacts", f"{len(files)} files in {folder} sound{note}", faults, "the next search makes them again"
    )


def _summary(name: str, text: str, faults: Iterable[str], remedy: str) -> Finding:
    faults = list(faults)
    if not faults:
        return ok(name, text)
    more = f"; and {len(faults) - _N_SHOWN} others" if len(faults) > _N_SHOWN else ""
    return Finding(name, Health.BROKEN, "; ".join(faults[:_N_SHOWN]) + more, remedy)
