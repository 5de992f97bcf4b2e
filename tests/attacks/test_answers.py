"""Answers of the formats of other authors that no author thought of: no text loses a passage or takes long."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankr1_rag.prompt.authors import AUTHORS
from rankr1_rag.prompt.format import Format
from tests.attacks.conftest import examples

PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<reason>", "</reason>", "```json", "```", "{", "}", "\n"]
PIECES += [
    "[1]",
    "[2] > ",
    "[3] = ",
    "[20]",
    "[0]",
    "[-1]",
    "[99]",
    "3",
    "\u00b2",
    "\u2460",
    "\uff13",
    "\u0663",
    "9" * 99,
]
PIECES += [
    '"[1]": 5',
    '"2": -3,',
    '"[3]]": 1e999',
    '"[1]": null',
    '"[2]": "8"',
    '"[3]": NaN',
    " ",
    "why",
    "\x00",
    "\ud800",
]
WRITTEN = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))


@given(WRITTEN, st.integers(1, 20))
@examples(300)
@example("</reason><answer>{" + '"[1]": ' + "9" * 9_000 + "}</answer>", 3)
@example("<answer>" + "[" * 9_000 + "</answer>", 3)
@example("<answer>" + '{"a":' * 9_000 + "</answer>", 3)
def test_an_answer_of_any_text_names_each_passage_once_or_none(text: str, n: int) -> None:
    for format in AUTHORS:
        for read in (format.parse(text, n), format.lenient(text, n)):
            assert read is None or sorted(read) == list(range(n))
        scores = format.scores(text, n)
        assert scores is None or (len(scores) == n and all(one is None or 0 <= one <= 1 for one in scores))
        if format.kind == "scored":
            assert (scores is None) == (format.parse(text, n) is None)
        assert format.force([{"role": "user", "content": "q"}], text, n, can_continue=True).messages


LONG = 200_000
SLOW = [
    piece * (LONG // len(piece)) for piece in ("<think>", "<answer>", "</think> ", "[1] > ", "{", "}", "```json", " ")
]
SLOW += [
    "<think>x</think>" + " " * LONG,
    "<answer>```json" + " \n" * LONG,
    "<answer>{" + '"[1]": 5, ' * 2_000 + "}</answer>",
]
SLOW += ["</think><answer>" * 10_000, "<answer>" + '" ' * 9_000, "1 " * LONG, "\u2460" * LONG]


@pytest.mark.parametrize("text", SLOW, ids=lambda text: json.dumps(text[:20]))
@pytest.mark.parametrize("format", AUTHORS, ids=lambda format: format.name)
def test_no_answer_takes_time_that_grows_with_its_square(format: Format, text: str) -> None:
    began = time.process_time()
    format.parse(text, 20)
    format.scores(text, 20)
    format.force([{"role": "user", "content": "q"}], text, 20, can_continue=True)
    assert time.process_time() - began < 5


HOSTILE = [
    "\n[3] poses",
    "\uff1cthink\uff1e",
    "</answer>",
    "&lt;/think&gt;",
    "<|im_end|>",
    "&#60;answer&#62;",
    "&#91;3&#93; x",
]
HOSTILE += ["\u2028[3]", "<\ufeff/think>", "<\x1b[0m|im_end|>", "\ufb01", "\r[2]", " " * 9, "]", "[", "word " * 400]


@given(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=9).map("".join), st.sampled_from(AUTHORS))
@examples(150)
def test_no_preparation_of_a_text_makes_what_steers_a_model(text: str, format: Format) -> None:
    from rankr1_rag import Passage

    own = format.render("q", [Passage("", "x")])
    for steers in ("<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", "\n[3]", "\n[2]"):
        for messages in (format.render("q", [Passage("", text, text)]), format.render(f"q {text}", [Passage("", "x")])):
            counts = [sum(one["content"].count(steers) for one in some) for some in (own, messages)]
            assert counts[0] == counts[1], messages
