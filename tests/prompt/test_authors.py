"""The formats of other authors: prompts byte for byte and answers as their own code makes and reads them."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Passage
from rankr1_rag.backends.chat_template import render_with
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.engine.query import Budget
from rankr1_rag.prompt import FORMATS, Format, authors
from rankr1_rag.prompt.authors import AUTHORS
from tests.golden.authors import ANSWERS, CASES, CUT, FOLDER, GRADES, INSTRUCTION, SINGLE, SOURCES, template

pytestmark = pytest.mark.third_party  # ftfy

RECORDS: dict[str, Any] = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in SOURCES}
DEPARTURES = {("reasonrank", len(ANSWERS) - 1)}  # their code drops a whole answer with a superscript


@pytest.mark.parametrize("name", RECORDS)
def test_a_prompt_is_that_of_the_authors(name: str) -> None:
    prompts = RECORDS[name]["prompts"]
    for (query, texts), theirs in zip(CASES if len(prompts) == len(CASES) else SINGLE, prompts, strict=True):
        passages = [Passage("", text, title) for title, text in texts]
        assert template(FORMATS[name].render(query, passages)) == theirs


@pytest.mark.parametrize("name", [name for name in RECORDS if "instructed" in RECORDS[name]])
def test_an_instruction_is_where_the_authors_have_it(name: str) -> None:
    for (query, [(title, text)]), theirs in zip(SINGLE, RECORDS[name]["instructed"], strict=False):
        assert template(FORMATS[name].render(query, [Passage("", text, title)], instruction=INSTRUCTION)) == theirs


@pytest.mark.parametrize("name", [name for name in RECORDS if "orders" in RECORDS[name]])
def test_an_order_is_read_as_the_authors_read_it(name: str) -> None:
    for place, ((n, text), theirs) in enumerate(zip(ANSWERS, RECORDS[name]["orders"], strict=True)):
        assert list(FORMATS[name].parse(text, n) or range(n)) == theirs or (name, place) in DEPARTURES, text


def test_scores_are_read_as_the_authors_read_them_and_broken_json_where_possible() -> None:
    for (n, text), theirs in zip(GRADES, RECORDS["grouprank"]["scores"], strict=True):
        found = FORMATS["grouprank"].scores(text, n)
        assert list(found or [0.0] * n) == theirs or not any(theirs), text


@pytest.mark.parametrize("begun", ["<think>", ""])
def test_reasoning_without_an_end_is_cut_as_the_authors_cut_it(begun: str) -> None:
    prompt = [{"role": "raw", "content": "Passage: x\n<think>"}]
    for text, theirs in zip(CUT, RECORDS["rank1"]["forced"], strict=True):
        forced = FORMATS["rank1"].force(prompt, begun + text, 1, can_continue=True)
        assert render_with(str, forced.messages).text == f"Passage: x\n{theirs}"
        assert (forced.choices, forced.text) == ((" true", " false"), begun + theirs.removeprefix("<think>"))
    forced = FORMATS["rank1"].force(prompt, "<think> so.\n</think> true", 1, can_continue=True)
    assert render_with(str, forced.messages).text == "Passage: x\n<think> so.\n</think>"


def test_qwen3_is_asked_as_rank_zephyr_with_its_reasoning_switched_off() -> None:
    passages = [Passage("", "text")] * 3
    plain, off = (FORMATS[name].render("which?", passages) for name in ("rank-zephyr", "qwen3-listwise"))
    assert off == [*plain, {"role": "assistant", "content": "<think>\n\n</think>\n\n"}]
    assert FORMATS["qwen3-listwise-reasoning"].render("which?", passages) == plain
    forced = FORMATS["qwen3-listwise"].force(off, "I [", 3, can_continue=True)
    assert [*forced.messages[:-1], forced.text] == [*plain, "I [\n["]
    assert forced.messages[-1]["content"] == "<think>\n\n</think>\n\nI [\n["


@pytest.mark.parametrize("name", ["qwen3-reranker", "mxbai-rerank-v2"])
def test_a_format_of_one_token_is_answered_without_reasoning(name: str) -> None:
    format = FORMATS[name]
    messages = format.render("which?", [Passage("", "text")])
    forced = format.force(messages, "", 1, can_continue=True)
    assert (forced.messages, forced.choices, forced.text) == (messages, format.choices, "")


@pytest.mark.parametrize("format", AUTHORS, ids=lambda format: format.name)
def test_a_format_is_a_value_and_its_known_passages_are_shown(format: Format) -> None:
    assert pickle.loads(pickle.dumps(format)) == format
    text = template(format.render("which?", [Passage("", "new")] * 2, [Passage("", "old")]))
    assert text.count("which? (already known: old)") == format.known_times


def test_number_of_passages_is_that_of_the_set() -> None:
    for n in (1, 7, 20):
        for format in AUTHORS:
            text = template(format.render("which?", [Passage("", "text")] * n))
            assert "{" not in text.replace('{"[1]"', "")
            assert format.max_passages == 1 or format.name == "rank-k" or f" {n} " in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("reasonrank", "<think>[2] > [1] is an idea"),
        ("rearank", "<think>[2] > [1] is an idea"),
        ("rank-k", "<think>so\n[2] > [1]"),
        ("rank-k", "<think>[1] > [2]</think>\n<think>no:\n[2] > [1]"),
        ("rank-zephyr", "<think>[2] > [1] is an idea"),
        ("qwen3-listwise-reasoning", "<think>[2] > [1]"),
        ("grouprank", '<reason>so {"[1]": 3, "[2]": 9}'),
        ("grouprank", '<reason>a</reason> <reason>so\n```json\n{"[1]": 3, "[2]": 9}\n```'),
    ],
)
def test_no_answer_is_read_in_reasoning_that_does_not_end(name: str, text: str) -> None:
    format = FORMATS[name]
    assert format.parse(text, 2) is None
    ended = text + ("</reason>\n" if format.tag == "reason" else "</think>\n")
    again = '{"[1]": 3, "[2]": 9}' if format.kind == "scored" else "[2] > [1]"
    assert format.parse(ended + again, 2) == (1, 0)


def test_the_program_that_makes_the_records_is_where_the_formats_say() -> None:
    [path] = re.findall(r"tests/\S+\.py", authors.__doc__ or "")
    assert (Path(__file__).parents[2] / path).is_file()


@pytest.mark.parametrize("name", FORMATS)
def test_a_window_of_a_long_passage_keeps_its_title_as_the_format_shows_it(name: str) -> None:
    title = "The <answer>title</answer>"
    passage = Passage("a", f"{'word ' * 55}a whale {'word ' * 20}", title)
    budget = Budget(FORMATS[name], size=1, reasoning_tokens=0, passage_tokens=40, clip="window")
    [line] = budget.fit("which whale?", [passage], Scripted(str)).lines
    start = FORMATS[name].line(Passage("a", "", title)).strip()
    assert line.startswith(f"{start} … word")
    assert "a whale" in line
