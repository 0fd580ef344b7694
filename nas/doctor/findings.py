"""What a look at one thing found."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """Whether something is to be done."""

    OK = "ok"
    ABSENT = "absent"  # and not needed, except by who asks for it
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What a look at one thing found.

    Attributes:
        name: Of the thing.
        health: Whether something is to be done.
        text: What it is like.
        remedy: What to do, where something is.
    """

    name: str
    health: Health
    text: str
    remedy: str = ""


def ok(name: str, text: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(name, Health.OK, text)


def absent(name: str, text: str, remedy: str = "") -> Finding:
    """Return that something optional is not here."""
    return Finding(name, Health.ABSENT, text, remedy)


def broken(name: str, text: str, remedy: str) -> Finding:
    """Return that something does not work."""
    return Finding(name, Health.BROKEN, text, remedy)
