"""Text of any origin as a terminal, a table or a figure may show it."""

_LINE_SEPARATORS = "\u2028\u2029"
_JOINERS = "\u200c\u200d"  # within words of some scripts


def shown(text: str, *, in_lines: bool = False) -> str:
    r"""Return `text` with its control characters written out, as `\x1b` for the one that begins an escape sequence.

    Among them are those that turn the direction of writing, and bytes of file names that are no UTF-8.

    Args:
        text: Of any origin.
        in_lines: Whether it may have several lines; by default line breaks and tabs are written out too.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c, in_lines) else c.encode("unicode_escape").decode() for c in text)


def _is_harmless(character: str, in_lines: bool) -> bool:
    is_break = in_lines and character in "\n\t"
    is_blank = character.isspace() and character > "\x9f" and character not in _LINE_SEPARATORS
    return is_break or is_blank or character.isprintable() or character in _JOINERS
