import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.values.shown_text import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, Ünïcödé 漢字 x\u00a0y", "plain, Ünïcödé 漢字 x\u00a0y"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b2J", r"\x9b2J"),  # the escape sequence of one byte
        ("abc\u202edef", r"abc\u202edef"),
        ("\u2028", r"\u2028"),
        ("क\u200dष", "क\u200dष"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_control_characters_are_written_out(text, expected):
    assert shown(text) == expected


def test_lines_stay_where_they_may():
    assert shown("a\n\tb\x1b\r", in_lines=True) == "a\n\tb\\x1b\\r"


@given(st.text())
def test_no_text_keeps_a_control_character(text):
    result = shown(text)
    assert not [c for c in result if unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")]
    assert result.splitlines() in ([], [result])
    assert shown(result) == result
