"""How an answer is read, strictly for the training reward too, and how it is forced from a model that gave none."""

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankr1_rag import Passage
from rankr1_rag.prompt import FORMATS
from rankr1_rag.prompt.authors import AUTHORS

SETWISE, SFT, LISTWISE = FORMATS["rank-r1-v0.1"], FORMATS["setwise-sft-v0.1"], FORMATS["listwise-v1"]
OWN = [format for format in FORMATS.values() if format not in AUTHORS]
"""The formats that are read by `parse` alone; for the others see test_authors.py."""
MESSAGES = [{"role": "user", "content": "which?"}]
LONG = 200_000
"""Characters: work that grew with their square would take minutes."""


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("<think>why</think> <answer>[3]</answer>", 3),
        ("<think>why</think>\n<answer>\n[ 3 ]\n</answer>", 3),
        ("<answer>[3]</answer>", 3),
        ("why</think><answer>[3]</answer> and more", 3),
        ("<answer>[1]</answer> no: <answer>[20]</answer>", 20),
        ("<think>an <answer> is due</think> <answer>[7]</answer>", 7),
        ("<ANSWER>[7]</ANSWER>", 7),
        ("<answer>Passage [7] is best</answer>", 7),
        ("<answer>[07]</answer>", 7),
        ("<answer>[7] [sic]</answer>", 7),
        ("<answer>[7] of 20</answer>", 7),
        ("</answer> <answer>x <answer>[7]</answer> </answer>", 7),
        ("<answer>[7]</answer> or <answer>[8]", 7),
    ],
)
def test_a_setwise_answer_is_the_one_label_of_the_last_answer(text: str, label: int) -> None:
    assert SETWISE.parse(text, 20) == (label - 1,)


NO_ANSWERS = ["", "[3]", "I like passage 3", "<answer>3</answer>", "<answer>[3]", "<answer></answer>"]
NO_ANSWERS += ["<answer>[0]</answer>", "<answer>[21]</answer>", "<answer>[-1]</answer>", "<answer>[\u0663]</answer>"]
NO_ANSWERS += ["<answer>[99999999999]</answer>", "<answer>[1] [2]</answer>", "<answer>[1], not [1]</answer>"]
NO_ANSWERS += ["<answer>[3], not [25]</answer>", "<answer>[99999][3]</answer>", "<answer>[-1] [3]</answer>"]
NO_ANSWERS += ["<answer>[3.5] [2]</answer>", "<answer>[3] [\u0663]</answer>", "<answer>[1, 2]</answer>"]
NO_ANSWERS += ["<answer>[1-3] [2]</answer>", "<answer>[passage 1] [2]</answer>", f"<answer>[{'9' * 9_000}]</answer>"]
NO_ANSWERS += ["<answer>[1]</answer> hm <answer>none</answer>", '{"error": {"message": "rate limit"}}']


@pytest.mark.parametrize("text", NO_ANSWERS, ids=lambda text: repr(text[:40]))
def test_anything_else_is_no_answer(text: str) -> None:
    assert SETWISE.parse(text, 20) is None


ALMOST = ["[2]", "2", "(2)", "2.", "**2**", "`[2]`", "[[2]]", "\u30102\u3011", "#2", "\\boxed{2}", "[2]</answer>"]
ALMOST += ["<answer>2</answer>", "<answer>[2]", "<answer>[2] [2]</answer>", "<answer>Passage 2</answer>", "Answer - 2"]
ALMOST += ["**Answer:** [2]", "Final answer: 2", "The answer is [2].", "Document 2 is the most relevant.", "It is 2"]
ALMOST += ["[2], because the others do not name the river.", "<answer>2</answer> since [2]", '{"answer": 2}', "[Doc 2]"]
ALMOST += [
    "2\n\nIt names the river, unlike 3 others.",
    "### Answer\n2",
    '```json\n{"id": 2}\n```',
    "I choose 2",
    "Label: 2",
]
ALMOST += [
    "Antwort: [2]",
    "Réponse : 2",
    "Ответ: 2",
    "答案\uff1a\uff12",
    "答案是2。",
    "最相关的文档是2",
    "[\uff12]",
    "\\[2\\]",
    "No. 2",
]
ALMOST += ["The answer is: \\[ \\boxed{2} \\]", "<result>2</result>", "[answer]2[/answer]", "[ID 2]", "2<|eot_id|>"]
ALMOST += [
    '{"answer": "2", "confidence": 9}',
    '{"why": "Passage 3 is about cats", "best_document": [2]}',
    '[{"id": 2}]',
]
ALMOST += ["<thinking>not [3]?</thinking> [2]", "[THINK][3][/THINK][2]", "<|channel|>final<|message|>[2]"]
ALMOST += ["Ruling out the others, [2] is best.", "[2] is right. Not that it matters"]
ALMOST += ["At least [2] names the river", "非常[2]"]
UNTAGGED = ["[1] is about 3 dogs, [3] about 1998.\n\nAnswer: [2]", "[1] is not it. <answer>2", "<think>why <answer>[2]"]


@pytest.mark.parametrize("text", [*ALMOST, *(f"<think>[1]? [3]?</think>\n{text}" for text in ALMOST), *UNTAGGED])
def test_one_clear_label_after_the_reasoning_is_a_lenient_answer(text: str) -> None:
    for format in OWN:
        assert format.lenient(text, 5) == ((1,) if format.kind == "setwise" else (1, 0, 2, 3, 4))
    assert SETWISE.strict(text, 5) is None
    assert SETWISE.parse(text, 5) is None


UNCLEAR = ["", "none", "text text text", "[1] [2]", "[2]\n[3]", "[2] or [3]", "passage 2 or 3", "[2, 3]", "[1-3]"]
UNCLEAR += ["2-4", "[2], not [3]", "not [2]", "[2] is not relevant", "[2] doesn't help", "Passages 2 and 3", "1 2"]
UNCLEAR += ["2.5", "-2", "[9]", "429", "2 %", "I found 2 passages.", "The 2 of them differ", "It took 2 days"]
UNCLEAR += ["Step 2: read", "page 2", "1. Read the query", "<think>[2]", "<think>[2]</think>", "[\u0662]"]
UNCLEAR += [
    "Nicht [2]",
    "La réponse n'est pas [2]",
    "答案不是[2]",
    "[2]不相关",
    "[2] ist falsch",
    "2个文档",
    "<score>2</score>",
]
UNCLEAR += ["[2] is wrong", "[2] is the least relevant", "The least relevant is [2]", "I rule out passage 2"]
UNCLEAR += ['{"score": 2}', '{"answer": [2, 3]}', '{"scores": {"2": 1}}', "<thinking>Perhaps [2]", "Score: 2"]
UNCLEAR += ["No relevant document: 2"]
UNCLEAR += ["<answer>1 <answer>2", "<answer>2</answer> or [3]", "<answer>[1]</answer> hm <answer>none</answer>"]
UNCLEAR += ["2\n3", "2\nPassage [3] is wrong", "[2] 3", "1. Read\n2. Choose"]
UNCLEAR += ["<think>why</think> [1] <answer>2", f"[{'2' * 9_000}]", f"{'2' * 9_000}"]


@pytest.mark.parametrize("text", UNCLEAR, ids=lambda text: repr(text[:40]))
def test_anything_unclear_is_no_lenient_answer(text: str) -> None:
    assert SETWISE.lenient(text, 5) is None


SENTENCES = st.sampled_from(["It was in {} that", "{} rivers flow there", "about {} % of it", "over {} years ago, so"])
FORMS = st.sampled_from(["[{}]", "passage {}", "Document [{}]", "**[{}]**", "<answer>{}</answer>", "label: {}"])
JOINTS = st.sampled_from(["\n", " and ", ", ", " or ", ". Or rather ", " > ", ", better than "])


@given(SENTENCES, FORMS, FORMS, JOINTS, st.permutations(range(1, 21)))
def test_a_label_is_read_in_any_sentence_and_not_if_another_differs(
    sentence: str, form: str, other: str, joint: str, labels: list[int]
) -> None:
    first, second, number = labels[:3]
    aside = sentence.format(number)
    assert SETWISE.lenient(f"<think>{second}</think> {aside}", 20) is None
    assert SETWISE.lenient(f"<think>{second}</think> {form.format(first)}\n{aside}.", 20) == (first - 1,)
    both = f"<think>why</think> {form.format(first)}{joint}{other.format(second)}"
    assert SETWISE.lenient(both, 20) is None


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("[2] > [1]", (1, 0, 2)),
        ("<think>why</think> 3 > 1 > 2", (2, 0, 1)),
        ("The order is [2], [3].", (1, 2, 0)),
        ("<answer>[2] > [1]", (1, 0, 2)),
        ("[2] is better than [1]", None),
        ("[2] > [1], or [3]", None),
    ],
)
def test_an_order_of_labels_is_a_lenient_listwise_answer(text: str, places: tuple[int, ...] | None) -> None:
    assert LISTWISE.lenient(text, 3) == places


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


@pytest.mark.parametrize(
    ("text", "reasoning", "is_open"),
    [
        ("<think> why </think> <answer>[3]</answer>", "why", False),
        ("why</think><answer>[3]</answer>", "why", False),
        ("why</think> <answer>[3", "why", False),
        ("<think>cut off", "cut off", True),
        ("<think>why</thi", "why</thi", True),
        ("<think", "<think", False),
        ("because <answer>[3]</answer>", "because", False),
        ("<answer>[3]</answer> and more", "", False),
        ("", "", False),
        ("[3]", "", False),
        (" 3. ", "", False),
        ("It is [3]", "It is [3]", False),
        ("<THINK>why", "why", True),
        ("<THINK>why</Think> <answer>[3]</answer>", "why", False),
        ("<think>\n<think>why</think> <answer>[3]</answer> and", "why", False),
        ("<think>an <think> tag</think> <answer>[3]</answer>", "an <think> tag", True),
        (
            "<think>as <think>x</think> <answer>[3]</answer>, so</think> <answer>[1]</answer>",
            "as <think>x</think> <answer>[3]</answer>, so",
            False,
        ),
        ("<think>a</think> <answer>[3]</answer> <think>b</think>", "a", False),
        ("<think>first of <answer>[3]</answer>, cut", "first of", True),
        ("<think>It is <think> here </think> <answer>[3]</answer>. Now", "It is <think> here", True),
    ],
)
def test_the_reasoning_is_without_its_tags_and_may_be_open(text: str, reasoning: str, is_open: bool) -> None:
    assert (SETWISE.reasoning_of(text), SETWISE.is_reasoning(text)) == (reasoning, is_open)


FORCED = [
    ("rank-r1-v0.1", text, continued)
    for text, continued in [
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
        (f"<think>done</think>\n<answer>Well, it is {'a very long' * 9} story", "<think>done</think> <answer>["),
    ]
]
QUOTED = "<think>Like <think> so </think> <answer>[3]</answer>. Now passage one sa"
MENTIONED = "I need the <answer> tag. Passage one says a lot, passage two says still more than passage one does"
FORCED += [("rank-r1-v0.1", QUOTED, f"{QUOTED} </think> <answer>[")]
FORCED += [("rank-r1-v0.1", f"{tag}{MENTIONED}", f"<think>{MENTIONED} </think> <answer>[") for tag in ("", "<think>")]
FORCED += [("setwise-sft-v0.1", "<think>well", "<think>well </think> <answer>[")]
FORCED += [("setwise-sft-v0.1", "well", "well <answer>["), ("rank-r1-v0.2", "<think>a", "<think>a </think>\n<answer>[")]


@pytest.mark.parametrize(("format", "text", "continued"), FORCED)
def test_reasoning_that_was_cut_off_is_closed_and_the_answer_opened(format: str, text: str, continued: str) -> None:
    forced = FORMATS[format].force(MESSAGES, text, 12, can_continue=True)
    assert (forced.text, forced.messages) == (continued, [*MESSAGES, {"role": "assistant", "content": continued}])
    assert not FORMATS[format].is_reasoning(forced.text)
    answers = [FORMATS[format].parse(forced.text + choice, 12) for choice in forced.choices]
    assert answers == [(place,) for place in range(12)]


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


@pytest.mark.parametrize(
    ("format", "text", "n", "places"),
    [
        ("rank-r1-v0.1", "<think>why</think> <answer>[3]</answer>", 20, (2,)),
        ("rank-r1-v0.1", "<think>why</think><answer>[3]</answer>", 20, (2,)),
        ("rank-r1-v0.1", " \n<think>\nwhy\n</think>\n\n<answer>[20]</answer>\n", 20, (19,)),
        ("rank-r1-v0.1", "<think></think> <answer>[1]</answer>", 20, (0,)),
        ("rank-r1-v0.1", "<think>[2], or <b>none</b>, see < think ></think> <answer>[1]</answer>", 20, (0,)),
        ("setwise-sft-v0.1", " <answer>[3]</answer>\n", 3, (2,)),
        ("setwise-sft-v0.1", "<think>why</think> <answer>[3]</answer>", 3, None),
        ("setwise-sft-v0.1", "<answer>[3]</answer>", 2, None),
        ("listwise-v1", "<think>why</think> <answer>[2] > [1] > [3]</answer>", 3, (1, 0, 2)),
        ("listwise-v1", "<think>why</think> <answer>[2] > [1]</answer>", 3, None),
        ("listwise-v1", "<think>why</think> <answer>[2] > [1] > [1]</answer>", 3, None),
        ("listwise-v1", "<think>why</think> <answer>[2] > [1] > [4]</answer>", 3, None),
        ("listwise-v1", "<think>why</think> <answer>[2], [1], [3]</answer>", 3, None),
    ],
)
def test_the_exact_form_of_an_answer(format: str, text: str, n: int, places: tuple[int, ...] | None) -> None:
    assert FORMATS[format].strict(text, n) == places


INEXACT = ["", "[3]", "<answer>[3]</answer>", "why</think> <answer>[3]</answer>", "<think>why <answer>[3]</answer>"]
INEXACT += ["so <think>why</think> <answer>[3]</answer>", "<think><think>why</think> <answer>[3]</answer>"]
INEXACT += ["<think>why</think></think> <answer>[3]</answer>", "<think>the <answer> tag</think> <answer>[3]</answer>"]
INEXACT += ["<think>an <ANSWER>[3]</ANSWER></think> <answer>[3]</answer>", "<Think>why</think> <answer>[3]</answer>"]
INEXACT += ["<think>why</THINK></think> <answer>[3]</answer>"]
ENDINGS = ["[3]", "", "<answer>[3]", "<answer>3</answer>", "<answer>[ 3 ]</answer>", "<answer> [3] </answer>"]
ENDINGS += ["<answer>[03]</answer>", "<answer>[\u0663]</answer>", "<answer>[0]</answer>", "<answer>[21]</answer>"]
ENDINGS += ["<answer>[-1]</answer>", f"<answer>[{'9' * 9_000}]</answer>", "<answer>[3] [4]</answer>"]
ENDINGS += ["<answer>[3] > [4]</answer>", "<answer>passage [3]</answer>", "so <answer>[3]</answer>"]
ENDINGS += ["<answer>[3]</answer> so", "<answer>[3]</answer></answer>", "<answer>[3]</answer> <answer>[3]</answer>"]
ENDINGS += ["<think>why</think> <answer>[3]</answer>", "<Answer>[3]</Answer>"]
INEXACT += [f"<think>why</think> {ending}" for ending in ENDINGS]


@pytest.mark.parametrize("text", INEXACT, ids=lambda text: repr(text[:60]))
def test_any_other_text_is_not_exact(text: str) -> None:
    assert SETWISE.strict(text, 20) is None


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<THINK>", "</Answer>", "[1]", "[2]", "[3]", "[03]"]
PIECES += [" > ", " ", "\n", "why", "<", "[", "]", "1", "\u2003", "<answer>[2]</answer>", "[2] > [3] > [1]"]
NEARLY = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
WRITTEN = st.one_of(
    st.text(),
    NEARLY,
    st.text().map("<answer>{}</answer>".format),
    st.builds("<think>{}</think>{}<answer>[{}]</answer>".format, NEARLY, NEARLY, st.integers(0, 25)),
    st.builds("<think>{}</think> <answer>{}</answer>".format, st.text(), NEARLY),
)


@given(WRITTEN, st.integers(1, 20))
@example("<answer>[3]</answer>", 3)
@example("<think>why</think> <answer>[2] > [1] > [3]</answer>", 3)
def test_an_answer_is_of_places_that_were_shown_and_what_strict_reads_parse_reads_alike(text: str, n: int) -> None:
    for format in OWN:
        places, exact = format.parse(text, n), format.strict(text, n)
        assert exact is None or (places == exact and not format.is_reasoning(text))
        for read in filter(None, (places, format.lenient(text, n))):
            assert len(read) == len(set(read)) == (n if format.kind == "listwise" else 1)
            assert set(read) <= set(range(n))


@given(st.integers(0, 19), st.integers(1, 20), st.text(alphabet=st.characters(exclude_characters="<")))
def test_a_written_or_forced_answer_is_exact(place: int, n: int, reasoning: str) -> None:
    for format in OWN:
        if format.kind == "setwise":
            text = format.answer(place, reasoning if format.reasoning else None)
            assert format.strict(text, n) == ((place,) if place < n else None)
            assert format.reasoning_of(text) == (reasoning.strip() if format.reasoning else "")
            forced = format.force([], f"<think>{reasoning}" if format.reasoning else "", n, can_continue=True)
            assert format.strict(forced.text + forced.choices[place % n], n) == (place % n,)


SLOW = ["<think>ok" + "\n " * LONG + "x", " " * LONG, "<answer>" * LONG, "<answer>[" * LONG, "<think>" * LONG]
SLOW += ["<think> " * LONG, "<answer></think>" * LONG, "</" * LONG, "<answer>" + "[" * LONG + "</answer>"]
SLOW += ["<answer>[" + " " * LONG + "3" + " " * LONG + "</answer>", "<think>" + "<" * LONG + "</think>"]
SLOW += [text * LONG for text in ("[1] or ", "passage 1 ", "answer: ", "1 > ", "not 1, ", "[", "2 ", "(#*: ")]
SLOW += ["<think>x</think>" + " " * LONG, "<think>x</think> <answer>" + "[1] > " * LONG]
LONG_LIST = "<think>x</think> <answer>" + "[1] > " * LONG + "[1]</answer>"


@pytest.mark.parametrize("text", [*SLOW, LONG_LIST], ids=lambda text: repr(text[:30]))
def test_no_text_takes_time_that_grows_with_its_square(text: str) -> None:
    for format in OWN:
        assert format.strict(text, 20) is None
        assert format.parse(text, 20) is None or (text == LONG_LIST and format.kind == "listwise")
        assert format.lenient(text, 20) is None
        assert len(format.reasoning_of(text)) <= len(text)
        assert "<answer>" in format.force(MESSAGES, text, 20, can_continue=True).text


@pytest.mark.parametrize("change", [json.dumps, str.upper, lambda text: text.replace("\n", "\n> ")])
def test_the_example_of_the_prompt_is_no_answer_in_another_layout_either(change: Callable[[str], str]) -> None:
    for format in OWN:
        echo = change("\n".join(message["content"] for message in format.render("which moth?", [Passage("", "a")] * 3)))
        assert (format.parse(echo, 3), format.lenient(echo, 3)) == (None, None)
