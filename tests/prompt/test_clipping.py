"""Cutting a text to a number of tokens."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.prompt import clip, tokens


def words(text: str) -> int:
    return len(text.split())


def unknown(text: str) -> None:
    return None


@pytest.mark.parametrize(
    ("text", "limit", "count", "clipped"),
    [
        ("one  two\n three " * 3, 9, words, "one  two\n three " * 3),
        ("alpha beta gamma delta " * 10, 7, words, "alpha beta gamma delta alpha beta gamma"),
        ("x" * 20_000, 10, unknown, "x" * 29),
        ("x" * 30, 10, unknown, "x" * 30),
        ("\u4f60\u597d" * 100, 10, unknown, "\u4f60\u597d" * 5),
        ("one two", 0, lambda text: 1 + words(text), ""),
    ],
    ids=["fits", "between words", "inside a word", "three bytes are a token", "of Chinese too", "only marks left"],
)
def test_a_text_is_cut_between_words_if_it_does_not_fit(
    text: str, limit: int, count: Callable[[str], int | None], clipped: str
) -> None:
    assert clip(text, limit, count) == clipped


def test_tokens_are_counted_or_estimated() -> None:
    assert (tokens("one two", words), tokens("one two", unknown)) == (2, 3)


@given(st.text(max_size=300), st.integers(0, 50))
def test_the_result_fits_and_is_a_beginning(text: str, limit: int) -> None:
    for count in (words, unknown, len):
        cut = clip(text, limit, count)
        assert text.startswith(cut)
        assert (count(cut) if count(cut) is not None else -(-len(cut.encode("utf-8", "surrogatepass")) // 3)) <= limit
