import json
import multiprocessing

import pytest

from nas.store.artifacts import ArtifactCache

KEYS = {"data": "abc", "epochs": 3}


def write(text):
    return lambda path: path.write_text(text)


def test_an_artifact_is_made_once_and_found_by_what_it_depends_on(tmp_path):
    cache = ArtifactCache(tmp_path / "cache")
    path, was_made = cache.get("teacher", KEYS, ".txt", write("first"))
    assert (path.read_text(), was_made) == ("first", True)
    assert cache.get("teacher", dict(reversed(KEYS.items())), ".txt", write("second")) == (path, False)
    assert path.read_text() == "first"
    assert cache.path("teacher", KEYS, ".txt") == path
    others = {cache.path("teacher", {**KEYS, "epochs": 4}, ".txt"), cache.path("encoder", KEYS, ".txt")}
    assert len(others | {path}) == 3


def test_what_it_depends_on_stands_beside_it(tmp_path):
    path, _ = ArtifactCache(tmp_path).get("teacher", KEYS, ".txt", write("x"))
    assert json.loads(path.with_suffix(".json").read_text()) == {"kind": "teacher", "depends_on": KEYS}


def test_a_failed_making_leaves_nothing_to_be_found(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    cache = ArtifactCache(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        cache.get("teacher", KEYS, ".txt", fail)
    assert not cache.path("teacher", KEYS, ".txt").exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.suffix == ".txt"]
    path, was_made = cache.get("teacher", KEYS, ".txt", write("whole"))
    assert (path.read_text(), was_made) == ("whole", True)


def _make_in_turn(root, results):
    def make(path):
        results.put("made")
        path.write_text("x")

    results.put(ArtifactCache(root).get("teacher", KEYS, ".txt", make)[1])


def test_of_several_processes_one_makes_it(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=_make_in_turn, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [results.get() for _ in range(4)]
    assert sorted(map(str, found)) == ["False", "False", "True", "made"]


def test_a_read_only_folder_is_read_and_never_written_to(tmp_path):
    shared, _ = ArtifactCache(tmp_path / "shared").get("teacher", KEYS, ".txt", write("shared"))
    (tmp_path / "shared" / "half.txt").touch()
    before = sorted((tmp_path / "shared").iterdir())
    cache = ArtifactCache(tmp_path / "own", read_only=tmp_path / "shared")
    assert cache.get("teacher", KEYS, ".txt", write("own")) == (shared, False)
    assert cache.seconds == 0
    path, was_made = cache.get("encoder", KEYS, ".txt", write("own"))
    assert (path.parent, path.read_text(), was_made) == (tmp_path / "own", "own", True)
    assert cache.seconds > 0
    assert sorted((tmp_path / "shared").iterdir()) == before


def test_of_a_pair_half_of_which_is_read_only_both_are_made(tmp_path):
    shared, cache = ArtifactCache(tmp_path / "shared"), ArtifactCache(tmp_path / "own", read_only=tmp_path / "shared")
    half, _ = shared.get("images", KEYS, ".txt", write("shared"))
    paths, was_made = cache.get_together(
        ("images", "targets"), KEYS, ".txt", lambda *paths: [path.write_text("own") for path in paths]
    )
    assert ({path.parent for path in paths}, was_made) == ({tmp_path / "own"}, True)
    assert half.read_text() == "shared"
