"""How an answer is read, and how one is had from a model that gave none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.prompt import FORMATS

SETWISE = FORMATS["rank-r1-v0.1"]
LISTWISE = FORMATS["listwise-v1"]
MESSAGES = [{"role": "user", "content": "which?"}]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("<think>why</think> <answer>[3]</answer>", 2),
        ("<think>why</think>\n<answer>\n[ 3 ]\n</answer>", 2),
        ("<answer>[3]</answer>", 2),
        ("why</think><answer>[3]</answer> and more", 2),
        ("<answer>[1]</answer> no: <answer>[20]</answer>", 19),
        ("<think>an <answer> is due</think> <answer>[7]</answer>", 6),
        ("<ANSWER>[7]</ANSWER>", 6),
        ("<answer>Passage [7] is best</answer>", 6),
        ("<answer>[07]</answer>", 6),
        ("<answer>[7] [sic]</answer>", 6),
        ("<answer>[7] of 20</answer>", 6),
        ("</answer> <answer>x <answer>[7]</answer> </answer>", 6),
        ("<answer>[7]</answer> or <answer>[8]", 6),
    ],
)
def test_a_setwise_answer_is_the_one_label_of_the_last_answer(text: str, place: int) -> None:
    assert SETWISE.parse(text, 20) == (place,)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[3]", "I like passage 3", "<answer>3</answer>", "<answer>[3]", "<answer></answer>"),
        *("<answer>[0]</answer>", "<answer>[21]</answer>", "<answer>[-1]</answer>"),
        *("<answer>[99999999999]</answer>", "<answer>[1] [2]</answer>", "<answer>[1], not [1]</answer>"),
        *("<answer>[3], not [25]</answer>", "<answer>[99999][3]</answer>", "<answer>[-1] [3]</answer>"),
        *("<answer>[3.5] [2]</answer>", "<answer>[3] [\u0663]</answer>", "<answer>[1, 2]</answer>"),
        *("<answer>[1-3] [2]</answer>", "<answer>[passage 1] [2]</answer>"),
        pytest.param(f"<answer>[{'9' * 9_000}]</answer>", id="more digits than int takes"),
        *("<answer>[1]</answer> hm <answer>none</answer>", "<answer>[\u0663]</answer>"),
        *('{"error": {"message": "rate limit"}}',),
    ],
)
def test_anything_else_is_no_answer(text: str) -> None:
    assert SETWISE.parse(text, 20) is None


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("<answer>[2] > [1] > [3]</answer>", (1, 0, 2)),
        ("<answer>[3]</answer>", (2, 0, 1)),
        ("<answer>[3] > [3] > [1]</answer>", (2, 0, 1)),
        ("<answer>[9] > [2] > [0]</answer>", (1, 0, 2)),
        ("<answer>[2], [3]</answer>", (1, 2, 0)),
        ("<answer>[99999] > [2.5] > [-1] > [2]</answer>", (1, 0, 2)),
        ("<answer>[9]</answer>", None),
        ("<answer>nothing</answer>", None),
        ("[2] > [1]", None),
    ],
)
def test_a_listwise_answer_appends_what_is_missing_and_drops_what_is_repeated_or_unknown(
    text: str, places: tuple[int, ...] | None
) -> None:
    assert LISTWISE.parse(text, 3) == places


@given(st.text(), st.integers(1, 20))
def test_no_text_breaks_the_parser(text: str, n: int) -> None:
    for format in FORMATS.values():
        for wrapped in (text, f"<answer>{text}</answer>"):
            places = format.parse(wrapped, n)
            assert places is None or (set(places) <= set(range(n)) and len(set(places)) == len(places))
            if places is not None:
                assert len(places) == (n if format.kind == "listwise" else 1)


@given(st.integers(1, 20), st.integers(1, 20))
def test_every_label_that_was_shown_is_read_back(label: int, n: int) -> None:
    expected = (label - 1,) if label <= n else None
    assert SETWISE.parse(f"<think>[{label}]</think> <answer>[{label}]</answer>", n) == expected


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think> why </think> <answer>[3]</answer>", "why"),
        ("why</think><answer>[3]</answer>", "why"),
        ("<think>cut off", "cut off"),
        ("because <answer>[3]</answer>", "because"),
        ("<answer>[3]</answer>", ""),
        ("", ""),
        ("<THINK>why</Think> <answer>[3]</answer>", "why"),
        ("<think>\n<think>why</think> <answer>[3]</answer>", "why"),
        ("<think>an <think> tag</think> <answer>[3]</answer>", "an <think> tag"),
        (
            "<think>as <think>x</think> <answer>[3]</answer>, so</think> <answer>[1]</answer>",
            "as <think>x</think> <answer>[3]</answer>, so",
        ),
        ("<think>a</think> <answer>[3]</answer> <think>b</think>", "a"),
        ("<think>first of <answer>[3]</answer>, cut", "first of"),
    ],
)
def test_the_thought_is_the_reasoning_without_its_tags(text: str, thought: str) -> None:
    assert SETWISE.reasoning_of(text) == thought


@pytest.mark.parametrize(
    ("text", "thinking"),
    [
        ("<think>The format is: <answer>[3]</answer>. Now passage one sa", True),
        ("<think>It is <think> here </think> <answer>[3]</answer>. Now passage one sa", True),
        ("<THINK>why", True),
        ("<think>why</thi", True),
        ("<think>why</think> <answer>[3]</answer>", False),
        ("<think>\n<think>why</think> <answer>[3]</answer> and", False),
        ("<Think>why</THINK> <ans", False),
        ("why</think> <answer>[3", False),
        ("<answer>[3]</answer> and more", False),
        ("<think", False),
        ("", False),
    ],
)
def test_a_text_with_an_open_thought_is_still_thinking(text: str, thinking: bool) -> None:
    assert SETWISE.is_reasoning(text) is thinking


def test_an_example_quoted_in_a_thought_gives_way_to_the_forced_label() -> None:
    thought = "<think>Like <think> so </think> <answer>[3]</answer>. Now passage one sa"
    forced = SETWISE.force(MESSAGES, thought, 12, can_continue=True)
    assert forced.text == f"{thought} </think> <answer>["
    assert not SETWISE.is_reasoning(forced.text)
    assert SETWISE.parse(forced.text + "5]</answer>", 12) == (4,)


LONG = 200_000


@pytest.mark.parametrize(
    "text",
    [
        *("<think>ok" + "\n " * LONG + "x", " " * LONG, "<answer>" * LONG, "<answer>[" * LONG, "<think>" * LONG),
        *("<think> " * LONG, "<answer></think>" * LONG, "</" * LONG, "<answer>" + "[" * LONG + "</answer>"),
        *("<answer>[" + " " * LONG + "3" + " " * LONG + "</answer>",),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_no_text_takes_time_that_grows_with_its_square(text: str) -> None:
    """At 200,000 characters and more, one of the square would take minutes."""
    for format in FORMATS.values():
        assert format.parse(text, 20) is None
        assert len(format.reasoning_of(text)) <= len(text)
        assert "<answer>" in format.force(MESSAGES, text, 20, can_continue=True).text


@pytest.mark.parametrize(
    ("text", "continued"),
    [
        ("<think>so far", "<think>so far </think> <answer>["),
        ("so far", "<think>so far </think> <answer>["),
        ("<think>done</think> <answer>[1", "<think>done</think> <answer>["),
        ("<think>done</think> <ans", "<think>done</think> <answer>["),
        ("<think>so far </thi", "<think>so far </think> <answer>["),
        ("<think>done</think>", "<think>done</think> <answer>["),
        ("", "<think> </think> <answer>["),
        ("<think>so far\n\n", "<think>so far </think> <answer>["),
        ("<think>so far <answer>\n[", "<think>so far </think> <answer>["),
        ("so far <answer>[1", "<think>so far </think> <answer>["),
        (
            "<think>done</think>\n<answer>Well, it is a long story, and to tell it from the beginning",
            "<think>done</think> <answer>[",
        ),
    ],
)
def test_a_thought_that_ran_out_is_closed_and_the_answer_opened(text: str, continued: str) -> None:
    forced = SETWISE.force(MESSAGES, text, 12, can_continue=True)
    assert forced.text == continued
    assert forced.messages == [*MESSAGES, {"role": "assistant", "content": continued}]
    for place, choice in enumerate(forced.choices):
        assert SETWISE.parse(forced.text + choice, 12) == (place,)
    assert len(forced.choices) == 12


@pytest.mark.parametrize("begin", ["", "<think>"])
def test_a_thought_that_speaks_of_the_answer_tag_is_kept(begin: str) -> None:
    thought = "I need the <answer> tag. Passage one says a lot, passage two says still more than passage one does"
    forced = SETWISE.force(MESSAGES, begin + thought, 12, can_continue=True)
    assert forced.text == f"<think>{thought} </think> <answer>["


def test_a_model_without_reasoning_that_thinks_has_its_thought_closed() -> None:
    forced = FORMATS["setwise-sft-v0.1"].force(MESSAGES, "<think>well", 2, can_continue=True)
    assert forced.text == "<think>well </think> <answer>["


def test_a_model_without_reasoning_is_given_no_thought() -> None:
    forced = FORMATS["setwise-sft-v0.1"].force(MESSAGES, "well", 2, can_continue=True)
    assert forced.text == "well <answer>["


def test_the_second_format_breaks_the_line_between_thought_and_answer() -> None:
    assert (
        FORMATS["rank-r1-v0.2"].force(MESSAGES, "<think>a", 2, can_continue=True).text == "<think>a </think>\n<answer>["
    )


def test_a_model_that_cannot_continue_is_asked_for_its_label_in_a_new_turn() -> None:
    forced = SETWISE.force(MESSAGES, "<think>so far", 3, can_continue=False)
    assert [message["role"] for message in forced.messages] == ["user", "assistant", "user"]
    assert forced.messages[1]["content"] == "<think>so far </think>"
    assert "<answer>" in forced.messages[2]["content"]
    assert SETWISE.parse(forced.text + forced.choices[2], 3) == (2,)


def test_a_listwise_model_is_left_to_spell_its_order() -> None:
    forced = LISTWISE.force(MESSAGES, "<think>so", 3, can_continue=True)
    assert forced.choices == ()
    assert LISTWISE.parse(forced.text + "2] > [1] > [3]</answer>", 3) == (1, 0, 2)
