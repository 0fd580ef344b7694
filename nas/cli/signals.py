"""How a command ends when it is told to: Ctrl-C, SIGTERM and SIGHUP alike."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_S = 8.0  # to stop in an orderly way; a library may not let go of the main thread for longer


class Stopped(BaseException):
    """The command was told to stop."""


class StopSignals:
    """While it is entered, the signals raise `Stopped` in the main thread; the process ends some seconds later at most.

    A signal that is ignored from the start (as under `nohup`) stays ignored, and further ones do not disturb the end.

    Attributes:
        number: Of the signal that came; `None` before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """By convention 128 and the number of the signal."""
        return 128 + (self.number or 0)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # where no signal arrives
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._stop)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=_end_at_last, args=(reading, set(self._before), _GRACE_S), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before:
            signal.set_wakeup_fd(-1)
        if self.number is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            if self._before:
                os.close(self._writing)  # which ends the thread

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for other in self._before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped

    def leave(self) -> None:
        """Exit with the signal's code, even if nobody reads the output any more."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(self.exit_code)


def _end_at_last(reading: int, numbers: set[int], grace_s: float) -> None:
    """Wait for one of the signals and then for the command to end by itself; end it if it does not."""
    while arrived := os.read(reading, 1):
        if arrived[0] in numbers:
            time.sleep(grace_s)
            os._exit(128 + arrived[0])
    os.close(reading)
