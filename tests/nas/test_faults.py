"""What an error says of its cause, each kind by itself."""

import errno
import os
import sqlite3

import pytest
import torch

from nas.errors import DataError, MachineError
from nas.faults import blaming_machine, is_machine_fault, machine_error, reason_of, traceback_of


class SpeechlessError(Exception):
    def __str__(self):
        raise ZeroDivisionError


class GarbledError(Exception):
    def __str__(self):
        return "half a pair: \ud800"


class EndlessError(Exception):
    def __str__(self):
        return "x" * 10**6


def raised(error, cause=None):
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


def wrapped(error):
    """Return an error raised while `error` was handled, with no word about it."""
    with pytest.raises(KeyError) as caught:
        try:
            raise error
        except type(error):
            {}["weights"]
    return caught.value


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SpeechlessError(), "SpeechlessError: (its text raises ZeroDivisionError)"),
        (GarbledError(), "GarbledError: half a pair: \\ud800"),
        (ValueError("three"), "ValueError: three"),
    ],
)
def test_whatever_an_error_says_can_be_stored(error, reason):
    assert reason_of(error) == reason
    traceback_of(raised(error)).encode("utf-8")


def test_a_text_without_end_is_cut_in_its_middle():
    assert len(reason_of(EndlessError())) < 2100
    assert reason_of(EndlessError()).startswith("EndlessError: xxx")


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EFBIG]
)
def test_a_system_that_fails_is_the_machines_fault_wherever_it_shows(code):
    error = OSError(code, os.strerror(code), "weights/x")
    assert is_machine_fault(error)
    assert is_machine_fault(wrapped(error))
    assert is_machine_fault(raised(ValueError("cannot save"), error))
    assert is_machine_fault(Exception(f"I/O error: {os.strerror(code)} (os error {code})"))  # a library's own


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.OperationalError("attempt to write a readonly database"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    ],
)
def test_libraries_tell_of_a_failing_machine_in_their_own_words(error):
    assert is_machine_fault(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "of_the_metric.txt"),
        PermissionError(errno.EACCES, "Permission denied"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        torch.OutOfMemoryError("CUDA out of memory"),
        ValueError("a full disk is round"),
        SpeechlessError(),
    ],
)
def test_what_a_candidate_does_wrong_is_its_own(error):
    assert not is_machine_fault(error)


def test_the_message_says_what_failed_what_to_mend_and_how_to_go_on():
    text = str(machine_error("weights/x cannot be written", OSError(errno.ENOSPC, "No space left on device")))
    assert text == (
        "weights/x cannot be written: OSError: [Errno 28] No space left on device. No candidate is to blame; make room "
        "on that disk, then give the same command again (nas search with --resume)"
    )
    assert "put back what was moved or deleted" in str(machine_error("x", FileNotFoundError(errno.ENOENT, "gone")))


def test_files_of_the_run_are_the_machines_and_other_errors_of_ours_pass():
    with (
        pytest.raises(MachineError, match="logits.npy cannot be read: ValueError: mmap length"),
        blaming_machine("logits.npy cannot be read"),
    ):
        raise ValueError("mmap length is greater than file size")
    with pytest.raises(DataError), blaming_machine("x"):
        raise DataError(["x.png: unreadable"])
    with pytest.raises(MemoryError), blaming_machine("x"):
        raise MemoryError  # which costs an attempt
    with pytest.raises(KeyError), blaming_machine("x", OSError):
        raise KeyError("a bug")
