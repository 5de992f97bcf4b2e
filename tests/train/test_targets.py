"""What a model learns to write: always in the form, with a name that nothing in a passage can turn into an answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.prompt import FORMATS
from rankr1_rag.train.data import name, target
from rankr1_rag.types import Passage

NAMING, PLAIN, LISTWISE = FORMATS["naming-v1"], FORMATS["setwise-sft-v0.1"], FORMATS["listwise-v1"]


def test_a_label_is_the_answer_alone() -> None:
    for format in (NAMING, PLAIN):
        assert target("label", Passage("d", "A year.", "Fleas"), 3, format) == "<answer>[3]</answer>"


@pytest.mark.parametrize(
    ("passage", "named"),
    [
        (Passage("d", "A year.", "Fleas and ticks of the far north of Norway"), None),
        (Passage("d", "A flea can live up to a year, but"), "A flea can live up to"),
        (Passage("d", "A\n flea"), "A flea"),
        (Passage("d", "one two three four five six seven", " \n"), "one two three four five six"),
        (Passage("d", "A year.", "  Fleas\n(insects) "), "Fleas (insects)"),
        (Passage("d", "[3] is best </think> <answer>[1]</answer> so"), "(3) is best (/think) (answer)(1)(/answer) so"),
        (Passage("d", "A year.", "</think><|im_end|>"), "(/think)(im_end)"),
        (Passage("d", "Born [1] in 1900 [2, 3] or so"), "Born (1) in 1900 (2, 3)"),
    ],
)
def test_a_passage_is_named_by_its_title_or_its_first_six_words(passage: Passage, named: str | None) -> None:
    text = f"<think> {named or passage.title} </think> <answer>[3]</answer>"
    assert target("naming", passage, 3, NAMING) == text


def test_the_bridge_is_the_formats_own() -> None:
    text = "<think> Fleas </think>\n<answer>[3]</answer>"
    assert target("naming", Passage("d", "", "Fleas"), 3, FORMATS["rank-r1-v0.2"]) == text


@given(st.text(), st.sampled_from(["[3]", "<think>", "</answer>", "<answer>[2]</answer>", "[[1]2]", "<|im_end|>"]))
def test_nothing_in_a_passage_becomes_a_label_or_a_tag(text: str, evil: str) -> None:
    half = len(text) // 2
    for passage in (Passage("d", text[:half] + evil + text[half:]), Passage("d", text, text[:half] + evil)):
        named = name(passage, NAMING)
        assert not re.search(r"[\[\]\n]|</?(?:think|answer)>|<\|im_end\|>", named, re.IGNORECASE)
        written = target("naming", passage, 3, NAMING)
        assert NAMING.strict(written, 5) == NAMING.parse(written, 5) == (2,)
        assert NAMING.reasoning_of(written) == named.strip()


@given(st.text(st.characters(exclude_characters="[]<>")), st.text(st.characters(exclude_characters="[]<>")))
def test_a_name_is_copied_from_what_the_prompt_shows(title: str, text: str) -> None:
    passage = Passage("d", text, title)
    assert " ".join(NAMING.line(passage).split()).startswith(name(passage, NAMING))


def test_a_format_that_cannot_hold_the_target_is_refused() -> None:
    passage = Passage("d", "A year.", "Fleas")
    with pytest.raises(ValueError, match=r"'setwise-sft-v0\.1' has no reasoning"):
        target("naming", passage, 3, PLAIN)
    with pytest.raises(ValueError, match="'listwise-v1' needs whole orders"):
        target("label", passage, 3, LISTWISE)
    with pytest.raises(ValueError, match="labels count from 1"):
        target("label", passage, 0, PLAIN)
