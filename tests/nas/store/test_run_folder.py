import multiprocessing
import os
import shutil

import pytest

import nas
from nas.errors import DamagedFileError
from nas.files import temporary_name
from nas.store.run_folder import RunFolder


def leftover(stem):
    """Return the name of a temporary file of a process that has ended."""
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    process.start()
    process.join()
    return temporary_name(stem).replace(f".{os.getpid()}@", f".{process.pid}@")


def test_the_next_run_removes_what_killed_processes_left(tmp_path):
    path = tmp_path / "run"
    RunFolder.write(path).close()
    places = [path / "weights", path / "plots", path / "exports", path, tmp_path, tmp_path / "artifacts"]
    for place in places:
        place.mkdir(exist_ok=True)
        (place / f"{leftover('x')}.npy").touch()
    shutil.copytree(path, tmp_path / leftover("preparation"))
    RunFolder.write(path).close()
    assert not [entry for place in places for entry in place.iterdir() if "@" in entry.name]


def test_damaged_weights_of_a_candidate_are_named_with_what_to_do(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    knee = nas.load_run(run).knee.id
    weights = run / "weights" / f"{knee}.quick.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"{weights} is damaged.*nas retrain {run} --candidate {knee}"):
        nas.export(run)
    weights.write_bytes(b"")
    with pytest.raises(DamagedFileError, match=rf"{weights} cannot be read.*nas retrain"):
        nas.export(run)
    assert not list((run / "exports").iterdir())
