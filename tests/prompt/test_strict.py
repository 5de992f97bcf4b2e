"""The strict parse, by which training rewards: the form to the letter, and what it reads `parse` reads alike."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankr1_rag.prompt import FORMATS

THINKING = FORMATS["rank-r1-v0.1"]
PLAIN = FORMATS["setwise-sft-v0.1"]
LISTWISE = FORMATS["listwise-v1"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("<think>why</think> <answer>[3]</answer>", 2),
        ("<think>why</think><answer>[3]</answer>", 2),
        (" \n<think>\nwhy\n</think>\n\n<answer>[20]</answer>\n", 19),
        ("<think></think> <answer>[1]</answer>", 0),
        ("<think>[2], or <b>none</b>, see < think ></think> <answer>[1]</answer>", 0),
    ],
)
def test_one_thought_and_one_label_are_in_the_form(text: str, place: int) -> None:
    assert THINKING.strict(text, 20) == (place,)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[3]", "<answer>[3]</answer>", "why</think> <answer>[3]</answer>", "<think>why <answer>[3]</answer>"),
        *("<think>why</think> [3]", "<think>why</think>", "<think>why</think> <answer>[3]"),
        *("<think>why</think> <answer>3</answer>", "<think>why</think> <answer>[ 3 ]</answer>"),
        *("<think>why</think> <answer> [3] </answer>", "<think>why</think> <answer>[03]</answer>"),
        *("<think>why</think> <answer>[\u0663]</answer>", "<think>why</think> <answer>[0]</answer>"),
        *("<think>why</think> <answer>[21]</answer>", "<think>why</think> <answer>[-1]</answer>"),
        pytest.param(f"<think>why</think> <answer>[{'9' * 9_000}]</answer>", id="more digits than int takes"),
        *("<think>why</think> <answer>[3] [4]</answer>", "<think>why</think> <answer>[3] > [4]</answer>"),
        *("<think>why</think> <answer>passage [3]</answer>", "<think>why</think> so <answer>[3]</answer>"),
        *("so <think>why</think> <answer>[3]</answer>", "<think>why</think> <answer>[3]</answer> so"),
        "<think>why</think> <answer>[3]</answer></answer>",
        "<think>why</think> <answer>[3]</answer> <answer>[3]</answer>",
        "<think>why</think> <think>why</think> <answer>[3]</answer>",
        *("<think><think>why</think> <answer>[3]</answer>", "<think>why</think></think> <answer>[3]</answer>"),
        "<think>the <answer> tag</think> <answer>[3]</answer>",
        "<think>an <ANSWER>[3]</ANSWER></think> <answer>[3]</answer>",
        *("<think>why</THINK></think> <answer>[3]</answer>", "<Think>why</think> <answer>[3]</answer>"),
        *("<think>why</think> <Answer>[3]</Answer>",),
    ],
)
def test_any_other_text_is_out_of_the_form(text: str) -> None:
    assert THINKING.strict(text, 20) is None


def test_a_format_without_reasoning_takes_the_answer_alone() -> None:
    assert PLAIN.strict(" <answer>[3]</answer>\n", 3) == (2,)
    assert PLAIN.strict("<think>why</think> <answer>[3]</answer>", 3) is None
    assert PLAIN.strict("<answer>[3]</answer>", 2) is None


@pytest.mark.parametrize(
    ("answer", "places"),
    [
        ("[2] > [1] > [3]", (1, 0, 2)),
        ("[2] > [1]", None),
        ("[2] > [1] > [1]", None),
        ("[2] > [1] > [4]", None),
        ("[2], [1], [3]", None),
    ],
)
def test_a_listwise_answer_must_hold_every_label_once(answer: str, places: tuple[int, ...] | None) -> None:
    assert LISTWISE.strict(f"<think>why</think> <answer>{answer}</answer>", 3) == places


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<THINK>", "</Answer>", "[1]", "[2]", "[3]", "[03]"]
PIECES += [" > ", " ", "\n", "why", "<", "[", "]", "1", "\u2003", "<answer>[2]</answer>", "[2] > [3] > [1]"]
NEARLY = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
WRITTEN = st.one_of(
    st.text(),
    NEARLY,
    st.builds("<think>{}</think>{}<answer>[{}]</answer>".format, NEARLY, NEARLY, st.integers(0, 25)),
    st.builds("<think>{}</think> <answer>{}</answer>".format, st.text(), NEARLY),
)


@given(WRITTEN, st.integers(1, 20))
@example("<answer>[3]</answer>", 3)
@example("<think>why</think> <answer>[2] > [1] > [3]</answer>", 3)
def test_whatever_strict_reads_parse_reads_alike(text: str, n: int) -> None:
    for format in FORMATS.values():
        places = format.strict(text, n)
        if places is not None:
            assert format.parse(text, n) == places
            assert not format.is_reasoning(text)
            assert len(places) == (n if format.kind == "listwise" else 1)


@given(st.integers(0, 19), st.integers(1, 20), st.text(alphabet=st.characters(exclude_characters="<")))
def test_what_a_format_wants_written_is_in_its_form(place: int, n: int, thought: str) -> None:
    expected = (place,) if place < n else None
    for format in FORMATS.values():
        if format.kind == "setwise":
            text = format.answer(place, thought if format.reasoning else None)
            assert format.strict(text, n) == expected
            assert format.reasoning_of(text) == (thought.strip() if format.reasoning else "")


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if format.kind == "setwise"])
def test_a_forced_label_is_in_the_form(name: str) -> None:
    forced = FORMATS[name].force([], "<think>why" if FORMATS[name].reasoning else "", 3, can_continue=True)
    assert FORMATS[name].strict(forced.text + forced.choices[1], 3) == (1,)


LONG = 200_000


@pytest.mark.parametrize(
    "text",
    [
        *("<think>" * LONG, "<think>" + "<" * LONG + "</think>", "<think>x</think>" + " " * LONG),
        "<think>x</think> <answer>" + "[1] > " * LONG,
        *("<think>x</think> <answer>" + "[1] > " * LONG + "[1]</answer>",),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_no_text_takes_time_that_grows_with_its_square(text: str) -> None:
    for format in FORMATS.values():
        assert format.strict(text, 20) is None
