import multiprocessing
import os
import time
from pathlib import Path

import pytest

from nas import files
from nas.errors import InputError
from nas.files import atomic_path, read_foreign, remove_leftovers, require_regular, temporary_name, write_text


def ended_process():
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    process.start()
    process.join()
    return process.pid


def test_content_and_name_are_on_the_disk_when_a_file_has_its_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: done.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    write_text(tmp_path / "a.txt", "x")
    assert [path.startswith(str(tmp_path / ".a.")) for path in done] == [True, False]
    assert done[1] == str(tmp_path)


def test_a_file_that_fails_to_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="full"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    dead, alive = ended_process(), os.getpid()
    kept = [".hidden.txt", "a.txt", temporary_name("running"), ".x.1@another-host.txt", ".x.y@z.txt"]
    gone = [temporary_name(name).replace(f".{alive}@", f".{dead}@") for name in ("a.b", "c")]
    for name in kept + gone:
        (tmp_path / name).touch()
    (tmp_path / f"{gone[0]}.folder").mkdir()
    (tmp_path / f"{gone[0]}.folder" / "store.sqlite").touch()
    assert remove_leftovers(tmp_path) == sorted([*gone, f"{gone[0]}.folder"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_another_machine_left_is_removed_after_a_day(tmp_path, monkeypatch):
    path = tmp_path / ".x.1@another-host.txt"
    path.touch()
    now = time.time()
    monkeypatch.setattr(files.time, "time", lambda: now + 86_000)
    assert remove_leftovers(tmp_path) == []
    monkeypatch.setattr(files.time, "time", lambda: now + 87_000)
    assert remove_leftovers(tmp_path) == [path.name]


def test_a_folder_that_is_not_there_holds_no_leftovers(tmp_path):
    assert remove_leftovers(tmp_path / "none") == []


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("read", [read_foreign, require_regular])
def test_only_regular_files_of_a_bounded_size_are_read(tmp_path, pipe, read):
    for path, fault in ((pipe, "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(InputError, match=rf"{path}: must be a regular file, it is {fault}"):
            read(path, 100)
    (tmp_path / "large").write_bytes(bytes(101))
    with pytest.raises(InputError, match="at most"):
        read(tmp_path / "large", 100)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none", 100)


def test_a_regular_file_is_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert read_foreign(tmp_path / "a", 7) == b"content"
