"""Cutting to a number of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.prompt import clip, tokens


def words(text: str) -> int:
    return len(text.split())


def unknown(text: str) -> None:
    return None


def test_what_fits_is_untouched() -> None:
    text = "one  two\n three " * 3
    assert clip(text, 9, words) is text


def test_it_cuts_between_words() -> None:
    assert clip("alpha beta gamma delta " * 10, 7, words).split() == ("alpha beta gamma delta " * 2).split()[:7]


def test_a_word_longer_than_the_limit_is_cut_inside() -> None:
    assert clip("x" * 20_000, 10, unknown) == "x" * 29


def test_without_a_tokenizer_three_bytes_are_a_token() -> None:
    assert len(clip("\u4f60\u597d" * 100, 10, unknown)) == 10
    assert clip("x" * 30, 10, unknown) == "x" * 30


def test_a_tokenizer_that_counts_its_own_marks_leaves_nothing_at_the_limit_of_them() -> None:
    assert clip("one two", 0, lambda text: 1 + words(text)) == ""


def test_tokens_are_counted_or_estimated() -> None:
    assert tokens("one two", words) == 2
    assert tokens("one two", unknown) == 3


@given(st.text(max_size=300), st.integers(0, 50))
def test_the_result_fits_and_is_a_beginning(text: str, limit: int) -> None:
    for count in (words, unknown, len):
        cut = clip(text, limit, count)
        assert text.startswith(cut)
        assert (count(cut) if count(cut) is not None else -(-len(cut.encode("utf-8", "surrogatepass")) // 3)) <= limit
