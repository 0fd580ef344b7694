"""How long one attempt of a candidate may take: one that hangs must not stop the search for ever."""

_FACTOR = 20  # times the longest so far: networks of one space differ, and a machine may be busy for a while
_LEAST_S = 600.0  # below it nobody waits long
_FIRST_S = 86_400.0  # while nothing was measured
START_LIMIT_S = 600.0
"""Seconds until a new worker takes its job: its imports may come from a slow disk."""


class TimeLimit:
    """The limit of an attempt: as given, or by the candidates that ended.

    Args:
        given_s: `candidate_timeout_s`; `None` for 20 times the longest candidate so far and at least 10 minutes, a day
            while none has ended.
    """

    def __init__(self, given_s: float | None = None) -> None:
        if given_s is not None and given_s <= 0:
            raise ValueError(f"candidate_timeout_s must be positive, got {given_s}")
        self._given_s = given_s
        self._longest_s: float | None = None

    def note_end(self, seconds: float) -> None:
        """Take note of a candidate that ended after `seconds`."""
        self._longest_s = max(seconds, self._longest_s or 0.0)

    def forget(self) -> None:
        """Forget measured durations: the next candidates are of another kind."""
        self._longest_s = None

    @property
    def seconds(self) -> float:
        """The limit as it is now; it holds for attempts under way too."""
        if self._given_s is not None:
            return self._given_s
        return _FIRST_S if self._longest_s is None else max(_LEAST_S, _FACTOR * self._longest_s)

    @property
    def reason(self) -> str:
        """Why an attempt that took longer was ended."""
        if self._given_s is not None:
            return f"it ran longer than execution.candidate_timeout_s = {self._given_s:g}"
        rule = f"{_FACTOR} times the longest candidate so far, at least {_LEAST_S:g} s"
        if self._longest_s is None:
            rule = "the limit while no candidate has ended"
        return f"it ran longer than {self.seconds:g} s ({rule}; execution.candidate_timeout_s sets another limit)"
