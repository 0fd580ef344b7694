"""Values that YAML 1.1 reads otherwise than people mean them, and characters that only look like blanks."""

import re

_BOOLEANS = {"yes": True, "no": False, "on": True, "off": False}
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]{1,3}(\.[0-9]{3})*,[0-9]+|[-+]?[0-9]+,[0-9]+([eE][-+]?[0-9]+)?")
_MAX_LENGTH = 100  # of what somebody means as a number
_TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
_LOOKALIKES = {
    "\u00a0": "a non-breaking space",
    "\u1680": "an Ogham space",
    **{chr(code): "a space of another width than the usual" for code in range(0x2000, 0x200B)},
    "\u200b": "a zero-width space",
    "\u200c": "a zero-width character",
    "\u200d": "a zero-width character",
    "\u2028": "a line separator",
    "\u2029": "a paragraph separator",
    "\u202f": "a narrow non-breaking space",
    "\u205f": "a mathematical space",
    "\u2060": "a zero-width character",
    "\u3000": "a wide space",
    "\ufeff": "a byte order mark",
}


def scalar_surprise(text: str, tag: str) -> str | None:
    """Return what is wrong with an unquoted value, and what to write; `None` for one that is read as it looks.

    Args:
        text: As it is written.
        tag: What YAML 1.1 takes it for.
    """
    if (meant := _BOOLEANS.get(text.lower())) is not None:
        return f"{text} is read as {str(meant).lower()}: write {str(meant).lower()}, or '{text}' for the text."
    if len(text) <= _MAX_LENGTH and _BASE_60.fullmatch(text):
        return f"{text} is read as a number to base 60: write {_decimal(text)}, or '{text}' for the text."
    if tag == _TIMESTAMP_TAG:
        return f"{text} is read as a date: write '{text}' for the text."
    if len(text) <= _MAX_LENGTH and _LEADING_ZERO.fullmatch(text):
        number = int(text.replace("_", ""))
        return f"{text} starts with 0, which means base 8: write {number}, or '{text}' for the text."
    if _DECIMAL_COMMA.fullmatch(text):
        whole, _, part = text.replace(".", "").partition(",")
        return f"{text} is no number: write {whole}.{part} with a point, or '{text}' for the text."
    return lookalike(text)


def lookalike(text: str) -> str | None:
    """Return what is wrong with text that holds a character that looks like a blank, or like nothing."""
    for character, what in _LOOKALIKES.items():
        if character in text:
            return f"{_shown(text)} holds {what} (U+{ord(character):04X}): write a blank, or quote the text."
    return None


def lookalikes_in_lines(text: str) -> list[tuple[int, str]]:
    """Return the lines of a file that cannot be read which hold such a character before any comment."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        code = re.split(r"(?:^|\s)#", line, maxsplit=1)[0]
        if (fault := lookalike(code.strip("\r\n \t"))) is not None:
            found.append((number, fault))
    return found


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]}...")


def _decimal(text: str) -> str:
    """Return what `1:30` means where a number of hours, or minutes, is asked for: 1.5."""
    sign = "-" if text.startswith("-") else ""
    total = 0.0
    for place, part in enumerate(text.lstrip("+-").replace("_", "").split(":")):
        total += float(part) / 60**place
    return f"{sign}{total:.6g}"
