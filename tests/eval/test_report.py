"""The report of a run as files: what is on the page and in the Markdown, and what never gets onto them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rankr1_eval.report import write_report
from rankr1_eval.report.markdown import markdown
from rankr1_eval.report.page import page
from rankr1_eval.scoring import EvaluatedRun, Read, SystemRun, score
from rankr1_rag.explain import clean
from tests.eval import made_run
from tests.html_pages import ParsedPage, check_in_browser, check_policy, needs_chromium

TAGS = """
b bdi blockquote body caption circle dd details div dl dt em figcaption figure footer g h1 h2 h3 h4 head header html li
line main meta ol p path rect section small span style summary svg table tbody td text th thead title tr ul
"""


@pytest.fixture(scope="module")
def run(shared_data: Path) -> EvaluatedRun:
    return made_run.of(made_run.real_questions(shared_data, 24))


def built(run: EvaluatedRun) -> tuple[str, str]:
    scores = score(run)
    return page(run, scores), markdown(run, scores)


@pytest.fixture(scope="module")
def ordinary(run: EvaluatedRun) -> tuple[str, str]:
    return built(run)


@pytest.fixture(scope="module")
def hostile(run: EvaluatedRun) -> tuple[str, str]:
    return built(made_run.hostile(run))


def test_the_page_holds_only_tags_of_its_own_and_no_inline_style_or_script(
    ordinary: tuple[str, str], hostile: tuple[str, str]
) -> None:
    for source in (ordinary[0], hostile[0]):
        check_policy(source)
        seen = ParsedPage(source)
        assert seen.tags <= set(TAGS.split())
        assert not {name for name, _ in seen.attributes if name.startswith("on") or name in ("style", "src", "href")}


def test_hostile_text_is_shown_as_text_and_breaks_no_table_of_the_markdown(hostile: tuple[str, str]) -> None:
    source, plain = hostile
    assert " ".join(clean(made_run.HOSTILE).split())[:100] in ParsedPage(source).text
    assert "{{ 7 * 7 }}" in ParsedPage(source).text
    for text in (source, plain):
        assert not set(text) & {"\x00", "\x1b", "\x9b", "\u202e", "\u2066", "\ud800"}
    assert "<script" not in plain
    assert "<img" not in plain
    for block in plain.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", each)) for each in block.splitlines()}) == 1


def test_the_same_run_gives_the_same_bytes(run: EvaluatedRun, ordinary: tuple[str, str], tmp_path: Path) -> None:
    write_report(run, score(run), tmp_path)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == {
        "report.html": ordinary[0],
        "report.md": ordinary[1],
    }


def test_an_old_report_stays_where_the_new_one_cannot_be_made(run: EvaluatedRun, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(AttributeError):
        write_report(replace(run, questions=(None,)), score(run), tmp_path)  # type: ignore[arg-type]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"report.html": "old"}


def test_every_system_every_section_and_the_reasoning_are_there(ordinary: tuple[str, str]) -> None:
    text = ParsedPage(ordinary[0]).text
    systems = "No rerank, Oracle, Random order, Rank-R1, votes 3, Gold context, No context"
    sections = "All systems, Moves of the supports, Results by group, Greatest gains, Cost"
    sentences = "F1 of the answers with k passages read, speaks of it directly, Chosen from"
    assert [part for part in f"{systems}, {sections}, {sentences}".split(", ") if part not in text] == []
    drawings = re.findall(r"<(svg|figure) [^>]*role=\"img\"[^>]*aria-label=\"([^\"]*)\"", ordinary[0])
    assert len(drawings) >= 5
    assert all(len(label) > 40 for _, label in drawings)


def test_one_k_is_drawn_as_bars_and_one_question_is_said_to_be_one(run: EvaluatedRun) -> None:
    source, plain = built(made_run.of(run.questions[:1], ks=(5,)))
    text = ParsedPage(source).text
    assert "F1 and exact match with 5 passages read" in text
    assert "One question" in text
    assert "One question" in plain


@pytest.mark.parametrize(
    "systems",
    ["none", "gold no-context", "rank-r1", "none oracle gold", "none random rank-r1", ""],
    ids=lambda systems: systems or "no systems",
)
def test_any_systems_make_a_report(run: EvaluatedRun, systems: str) -> None:
    source, plain = built(replace(run, systems=tuple(one for one in run.systems if one.name in systems.split())))
    for text in (ParsedPage(source).text, plain):
        assert not re.search(r"\b(nan|inf|None)\b", text)


def test_a_system_without_rankings_or_answers_is_reported(run: EvaluatedRun) -> None:
    bare = {"none": "none", "rank-r1": "cross-encoder:some/Model-L6"}
    systems = tuple(SystemRun(bare[one.name], one.orders) for one in run.systems if one.name in bare)
    source, plain = built(replace(run, systems=systems))
    assert "Cross-encoder Model-L6" in ParsedPage(source).text
    assert "The reasoning behind" not in source
    assert "Exact match" not in plain.partition("## How this")[0]


def test_a_failed_ranking_missing_answers_and_long_ones_are_told(run: EvaluatedRun) -> None:
    id, long = run.questions[0].query.id, Read("word " * 1000, "")
    systems = []
    for one in run.systems:
        rankings = {q: replace(found, failure="503 <busy>") if q == id else found for q, found in one.rankings.items()}
        reads = {k: {q: long for q in found if q != id} for k, found in one.reads.items()}
        systems.append(replace(one, rankings=rankings, reads=reads))
    source, plain = built(replace(run, systems=tuple(systems)))
    text = ParsedPage(source).text
    assert "the model failed in 1 question, which keep the first-stage order (503 <busy>)" in text
    assert "1 question without an order or an answer, counted as 0" in text
    assert "word " * 60 not in source + plain


def test_a_model_that_names_nothing_is_an_alarm(run: EvaluatedRun) -> None:
    mute, none = made_run.judge(0.5, unparsed=1.0), run.systems[0]
    rankings = {
        q.query.id: made_run.ranked(q, [run.passages[id] for id in none.orders[q.query.id]], mute, force="never")
        for q in run.questions[:4]
    }
    orders = {id: tuple(p.id for p in one.passages) for id, one in rankings.items()}
    ours = SystemRun("rank-r1", orders, {}, rankings, {id: one.cost for id, one in rankings.items()})
    source = built(replace(run, questions=run.questions[:4], systems=(none, ours)))[0]
    assert "100 % of the comparisons gave no answer that could be parsed" in ParsedPage(source).text
    assert 'class="figure alarm"' in source


def test_fifty_questions_make_a_small_page_and_many_list_only_the_extremes(shared_data: Path) -> None:
    few, many = (built(made_run.of(made_run.real_questions(shared_data, n), votes=False))[0] for n in (50, 200))
    assert len(few.encode()) < 1_000_000
    assert len(many.encode()) < 1.5 * len(few.encode())
    assert many.count('<details class="case') <= 10


def test_settings_are_at_the_end_whatever_they_hold(run: EvaluatedRun) -> None:
    odd = {"a": {"b_c": [1, 2]}, "path": Path("x"), "long": "y" * 2000, "none": None, "text": "t"}
    text = ParsedPage(built(replace(run, settings=odd))[0]).text
    for told in ("a b c", "[1, 2]", json.dumps("x"), "null"):
        assert told in text
    assert "y" * 400 not in text


@needs_chromium
def test_a_browser_accepts_the_page(shared_data: Path, tmp_path: Path) -> None:
    run = made_run.of(made_run.real_questions(shared_data, 6))
    for name, each in (("ordinary", run), ("hostile", made_run.hostile(run))):
        (tmp_path / name).mkdir()
        write_report(each, score(each), tmp_path / name)
    dom = check_in_browser(tmp_path / "ordinary" / "report.html", tmp_path / "hostile" / "report.html")
    assert dom.count("<h2") >= 5
