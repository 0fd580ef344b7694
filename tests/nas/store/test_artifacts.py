import hashlib
import json
import multiprocessing
import os

import pytest

from nas.errors import DamagedFileError
from nas.store import checksums
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
    beside = json.loads(path.with_suffix(".json").read_text())
    assert {key: beside[key] for key in ("kind", "depends_on", "size", "sha256")} == {
        "kind": "teacher",
        "depends_on": KEYS,
        "size": 1,
        "sha256": hashlib.sha256(b"x").hexdigest(),
    }


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


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip,
    "truncated": lambda path: os.truncate(path, 3),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_text(path.read_text() + "!"),
    "its record": lambda path: path.with_suffix(".json").write_text('{"sha256": "0'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_artifact_is_made_again_and_that_is_said(tmp_path, damage):
    path, _ = ArtifactCache(tmp_path).get("teacher", KEYS, ".txt", write("content"))
    damage(path)
    said = []
    made = ArtifactCache(tmp_path).get("teacher", KEYS, ".txt", write("content"), said.append)
    assert (made, path.read_text()) == ((path, True), "content")
    assert len(said) == 1
    assert str(path) in said[0]
    assert "damaged" in said[0]
    assert ArtifactCache(tmp_path).get("teacher", KEYS, ".txt", write("x"), said.append) == (path, False)
    assert len(said) == 1


def test_of_a_pair_one_of_which_is_damaged_both_are_made_again(tmp_path):
    def make(*paths):
        for path in paths:
            path.write_text("content")

    cache, said = ArtifactCache(tmp_path), []
    (images, targets), _ = cache.get_together(("images", "targets"), KEYS, ".txt", make)
    flip(targets)
    assert cache.get_together(("images", "targets"), KEYS, ".txt", make, said.append) == ((images, targets), True)
    assert targets.read_text() == "content"
    assert [str(targets) in text for text in said] == [True]


def test_a_damaged_artifact_that_cannot_be_replaced_is_an_error_that_names_it(tmp_path, monkeypatch):
    path, _ = ArtifactCache(tmp_path).get("teacher", KEYS, ".txt", write("content"))
    flip(path)

    def refuse(lock):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)  # as in a folder of somebody else's
    with pytest.raises(DamagedFileError, match=rf"{path} is damaged.*cannot be made again here.*Permission denied"):
        ArtifactCache(tmp_path).get("teacher", KEYS, ".txt", write("content"))


def test_a_damaged_artifact_of_a_read_only_folder_is_made_in_the_own_one(tmp_path):
    shared, _ = ArtifactCache(tmp_path / "shared").get("teacher", KEYS, ".txt", write("shared"))
    flip(shared)
    cache = ArtifactCache(tmp_path / "own", read_only=tmp_path / "shared")
    path, was_made = cache.get("teacher", KEYS, ".txt", write("own"))
    assert (path.parent, path.read_text(), was_made) == (tmp_path / "own", "own", True)


def test_an_artifact_of_a_release_without_checksums_is_read(tmp_path):
    cache = ArtifactCache(tmp_path)
    path = cache.path("teacher", KEYS, ".txt")
    path.write_text("old")
    path.with_suffix(".json").write_text(json.dumps({"kind": "teacher", "depends_on": KEYS}))
    assert cache.get("teacher", KEYS, ".txt", write("new")) == (path, False)
    assert path.read_text() == "old"


@pytest.mark.parametrize(("always_read", "n_read"), [(10**9, 1), (0, 0)], ids=["small", "large"])
def test_a_file_is_read_once_in_a_process_and_a_large_one_that_was_not_touched_not_at_all(
    tmp_path, monkeypatch, always_read, n_read
):
    cache, hashed = ArtifactCache(tmp_path), []
    path, _ = cache.get("teacher", KEYS, ".txt", write("content"))

    def counted(path):
        hashed.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(checksums, "_checked", {})  # as in a new process
    monkeypatch.setattr(checksums, "_ALWAYS_READ_BYTES", always_read)
    monkeypatch.setattr(checksums, "file_hash", counted)
    for _ in range(3):
        assert cache.get("teacher", KEYS, ".txt", write("x")) == (path, False)
    assert hashed == [path] * n_read
    flip(path)
    os.utime(path, ns=(0, 0))
    assert cache.get("teacher", KEYS, ".txt", write("content"), hashed.append)[1]


def test_what_a_killed_process_left_is_removed_when_the_next_artifact_is_made(tmp_path):
    with pytest.raises(OSError, match="killed"):
        ArtifactCache(tmp_path).get("views", KEYS, ".txt", _leave_half)
    assert len(list(tmp_path.glob(".*@*"))) == 1
    ArtifactCache(tmp_path).get("teacher", KEYS, ".txt", write("x"))
    assert not list(tmp_path.glob(".*@*"))


def _leave_half(path):
    """Leave a temporary file as a process does that is killed while it writes."""
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    process.start()
    process.join()
    path.with_name(path.name.replace(str(os.getpid()), str(process.pid))).write_text("half")
    raise OSError("killed")
