"""What `clean`, `line` and `start` let through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.explain import clean
from rankr1_rag.explain.story import line, start

ANY = st.text(st.characters())  # surrogates included


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcødé, 日本語, العربية 🙂", "plain ünïcødé, 日本語, العربية 🙂"),
        ("two\r\nlines\n\tand a tab", "two\nlines\n\tand a tab"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\x00b\x07c\x08d\re\x7f", "a␀b␇c␈d␍e␡"),
        ("\x9b31m\x85", "\ufffd31m\ufffd"),
        ("\u202eevil\u202c \u2066x\u2069", "\ufffdevil\ufffd \ufffdx\ufffd"),
        ("\ud800 alone", "\ufffd alone"),
        ("a\u2028b\u2029c", "a\nb\nc"),
    ],
)
def test_what_could_steer_a_terminal_becomes_visible(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(ANY)
def test_a_cleaned_text_is_utf_8_and_cleaning_it_again_changes_nothing(text: str) -> None:
    once = clean(text)
    once.encode("utf-8")
    assert clean(once) == once
    assert not any(ord(character) < 32 and character not in "\n\t" for character in once)


@given(ANY, st.integers(1, 50))
def test_a_start_is_one_line_and_no_longer_than_asked(text: str, length: int) -> None:
    shown = start(text, length)
    assert len(shown) <= length
    assert "\n" not in shown
    assert shown == line(text) or shown.endswith("…")
