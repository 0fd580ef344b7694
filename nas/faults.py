"""What an error says of its cause: want of memory, a fault of the machine, or anything else."""

import contextlib
import errno
import os
import traceback
from collections.abc import Iterator

from nas.errors import MachineError, NasError

GO_ON = "give the same command again (nas search with --resume)"
"""Ends the texts of faults of the machine."""

_MAX_REASON = 2_000  # characters that are kept of an error's text
_MAX_TRACEBACK = 20_000

_MEMORY_ERRORS = ("MemoryError:", "OutOfMemoryError:")  # begin a reason: Python's, torch's of its CUDA allocator
_MEMORY_TEXTS = (  # stand anywhere in one: RuntimeErrors of torch and of the libraries that it calls
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",  # cuDNN 9
    "DEVICE_ALLOCATION_FAILED",
    "std::bad_alloc",
    os.strerror(errno.ENOMEM),
)

_ADVICE = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk, or raise its quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "make that file system writable",
    errno.EIO: "see whether that disk is failing",
    errno.ESTALE: "mount that file system again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs' files, or raise the system's limit of open files",
}
"""Errors of a system that are the machine's wherever they occur, and what helps."""

_TEXTS = {os.strerror(code): code for code in _ADVICE} | {
    "database or disk is full": errno.ENOSPC,  # SQLite's words
    "attempt to write a readonly database": errno.EROFS,
    "disk I/O error": errno.EIO,
}
"""What libraries say that raise errors of their own."""

_ADVICE_BY_PLACE = {
    errno.ENOENT: "put back what was moved or deleted",
    errno.ENOTDIR: "put back what was moved or deleted",
    errno.EACCES: "give back the right to read and write there",
    errno.EPERM: "give back the right to read and write there",
}
"""Errors that are the machine's where they concern files of the run; in a user's function they are the candidate's."""

_LOST_GPU_TEXTS = (
    "uncorrectable ECC error",
    "no CUDA-capable device is detected",
    "CUDA-capable device(s) is/are busy or unavailable",
    "GPU has fallen off the bus",
)


def reason_of(error: BaseException) -> str:
    """Return the type and the text of `error`, whatever its text is made of."""
    try:
        text = str(error)
    except Exception as fault:  # noqa: BLE001 - the text is made by anybody's code
        text = f"(its text raises {type(fault).__name__})"
    return _storable(f"{type(error).__name__}: {text}", _MAX_REASON)


def traceback_of(error: BaseException) -> str:
    """Return where `error` was raised."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as fault:  # noqa: BLE001 - as above
        text = f"(its traceback raises {type(fault).__name__})"
    return _storable(text, _MAX_TRACEBACK)


def _storable(text: str, n: int) -> str:
    """Return `text` without what a store cannot hold, its middle left out where it is too long."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= n else f"{text[: n // 2]} [...] {text[-n // 2 :]}"


def is_out_of_memory(reason: str) -> bool:
    """Return whether the text of an error, as `reason_of` gives it, says that memory was short."""
    return reason.startswith(_MEMORY_ERRORS) or any(text in reason for text in _MEMORY_TEXTS)


def is_machine_fault(error: BaseException) -> bool:
    """Return whether `error`, or one that led to it, says that a disk, a file system or a GPU fails."""
    for link in _chain(error):
        if isinstance(link, MachineError) or (isinstance(link, OSError) and link.errno in _ADVICE):
            return True
        text = reason_of(link)
        if _errno_in(text) is not None or any(lost in text for lost in _LOST_GPU_TEXTS):
            return True
    return False


def machine_error(what: str, error: BaseException) -> MachineError:
    """Return the `MachineError` that tells of `error`: what failed, why, what to mend."""
    advice = next((advice for link in _chain(error) if (advice := _advice(link))), "mend that")
    return MachineError(f"{what}: {reason_of(error)}. No candidate is to blame; {advice}, then {GO_ON}")


@contextlib.contextmanager
def blaming_machine(what: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """Raise what goes wrong inside as a `MachineError`: files of the run are read or written there.

    Errors of this package pass as they are, and so does want of memory, which costs an attempt.

    Args:
        what: Failed; begins the message.
        kind: Of the errors that are the machine's; others pass, unless a disk or a GPU is behind them.
    """
    try:
        yield
    except NasError:
        raise
    except Exception as error:
        is_machines = isinstance(error, kind) or is_machine_fault(error)
        if not is_machines or is_out_of_memory(reason_of(error)):
            raise
        raise machine_error(what, error) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and those that led to it, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _advice(error: BaseException) -> str | None:
    code = error.errno if isinstance(error, OSError) else _errno_in(reason_of(error))
    return _ADVICE.get(code, _ADVICE_BY_PLACE.get(code)) if code is not None else None


def _errno_in(text: str) -> int | None:
    """Return the error of the system that a library tells of in words."""
    return next((code for known, code in _TEXTS.items() if known in text), None)
