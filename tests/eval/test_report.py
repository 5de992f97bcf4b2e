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


def only(run: EvaluatedRun, *rows: str) -> EvaluatedRun:
    return replace(run, systems=tuple(row for row in run.systems if row.name in rows))


def built(run: EvaluatedRun) -> tuple[str, str]:
    scores = score(run)
    return page(run, scores), markdown(run, scores)


def test_the_page_holds_only_tags_of_its_own_and_no_inline_style_or_script(run: EvaluatedRun) -> None:
    for each in (run, made_run.hostile(run)):
        check_policy(built(each)[0])
        seen = ParsedPage(built(each)[0])
        assert seen.tags <= set(TAGS.split())
        assert not {name for name, _ in seen.attributes if name.startswith("on") or name in ("style", "src", "href")}


def test_hostile_text_is_shown_as_text(run: EvaluatedRun) -> None:
    source, plain = built(made_run.hostile(run))
    assert " ".join(clean(made_run.HOSTILE).split())[:100] in ParsedPage(source).text
    for text in (source, plain):
        assert not set(text) & {"\x00", "\x1b", "\x9b", "\u202e", "\u2066", "\ud800"}
    assert "{{ 7 * 7 }}" in ParsedPage(source).text
    assert "<script" not in plain
    assert "<img" not in plain


def test_hostile_text_breaks_no_table_of_the_markdown(run: EvaluatedRun) -> None:
    for block in built(made_run.hostile(run))[1].split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", each)) for each in block.splitlines()}) == 1


def test_the_same_run_gives_the_same_bytes(run: EvaluatedRun, tmp_path: Path) -> None:
    scores = score(run)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(run, scores, tmp_path / name)
    for name in ("report.html", "report.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["report.html", "report.md"]


def test_an_old_report_stays_where_the_new_one_cannot_be_made(run: EvaluatedRun, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(AttributeError):
        write_report(replace(run, questions=(None,)), score(run), tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "report.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_every_system_every_section_and_the_reasoning_are_there(run: EvaluatedRun) -> None:
    text = ParsedPage(built(run)[0]).text
    systems = "No rerank, Oracle, Random order, Rank-R1, votes 3, Gold context, No context"
    sections = "All systems, Moves of the supports, Results by group, Greatest gains, Cost"
    sentences = "F1 of the answers with k passages read, speaks of it directly, Chosen from"
    assert [part for part in f"{systems}, {sections}, {sentences}".split(", ") if part not in text] == []


def test_one_k_is_drawn_as_bars(shared_data: Path) -> None:
    text = ParsedPage(built(made_run.of(made_run.real_questions(shared_data, 12), ks=(5,)))[0]).text
    assert "F1 and exact match with 5 passages read" in text


def test_every_drawing_has_a_description(run: EvaluatedRun) -> None:
    drawings = re.findall(r"<(svg|figure) [^>]*role=\"img\"[^>]*aria-label=\"([^\"]*)\"", built(run)[0])
    assert len(drawings) >= 5
    assert all(len(label) > 40 for _, label in drawings)


@pytest.mark.parametrize(
    "rows",
    [
        ("none",),
        ("gold", "no-context"),
        ("rank-r1",),
        ("none", "oracle", "gold"),
        ("none", "random", "rank-r1"),
        (),
    ],
    ids=lambda rows: "+".join(rows) or "no rows",
)
def test_any_rows_make_a_report(run: EvaluatedRun, rows: tuple[str, ...]) -> None:
    source, plain = built(only(run, *rows))
    ParsedPage(source)
    for text in (ParsedPage(source).text, plain):
        assert not re.search(r"\b(nan|inf|None)\b", text)


def test_a_row_without_rankings_or_answers_is_reported(run: EvaluatedRun) -> None:
    bare = {"none": "none", "rank-r1": "cross-encoder:some/Model-L6"}
    rows = tuple(SystemRun(bare[row.name], row.orders) for row in run.systems if row.name in bare)
    source, plain = built(replace(run, systems=rows))
    assert "Cross-encoder Model-L6" in ParsedPage(source).text
    assert "The reasoning behind" not in source
    assert "Exact match" not in plain.partition("## How this")[0]


def test_one_question_makes_a_report_that_says_so(run: EvaluatedRun) -> None:
    alone = made_run.of(run.questions[:1])
    source, plain = built(alone)
    assert "One question" in ParsedPage(source).text
    assert "One question" in plain


def test_a_failed_ranking_and_missing_answers_are_told(run: EvaluatedRun) -> None:
    id = run.questions[0].query.id
    rows = []
    for row in run.systems:
        rankings = {key: replace(one, failure="503 <busy>") if key == id else one for key, one in row.rankings.items()}
        reads = {k: {key: read for key, read in found.items() if key != id} for k, found in row.reads.items()}
        rows.append(replace(row, rankings=rankings, reads=reads))
    text = ParsedPage(built(replace(run, systems=tuple(rows)))[0]).text
    assert "the model failed in 1 question, which keep the first-stage order (503 <busy>)" in text
    assert "1 question without an order or an answer, counted as 0" in text


def test_a_model_that_names_nothing_is_an_alarm(run: EvaluatedRun) -> None:
    mute = made_run.judge(0.5, unparsed=1.0)
    corpus = run.passages
    none = next(row for row in run.systems if row.name == "none")
    rankings = {
        q.query.id: made_run.ranked(q, [corpus[id] for id in none.orders[q.query.id]], mute, force="never")
        for q in run.questions[:4]
    }
    orders = {id: tuple(p.id for p in one.passages) for id, one in rankings.items()}
    row = SystemRun("rank-r1", orders, {}, rankings, {id: one.cost for id, one in rankings.items()})
    source = built(replace(run, questions=run.questions[:4], systems=(none, row)))[0]
    assert "100 % of the comparisons gave no answer that could be parsed" in ParsedPage(source).text
    assert 'class="figure alarm"' in source


def test_a_very_long_answer_is_cut(run: EvaluatedRun) -> None:
    rows = [
        replace(row, reads={k: {id: Read("word " * 1000, "") for id in found} for k, found in row.reads.items()})
        for row in run.systems
    ]
    source, plain = built(replace(run, systems=tuple(rows)))
    assert "word " * 60 not in source
    assert "word " * 60 not in plain


def test_fifty_questions_make_a_small_page_and_many_list_only_the_extremes(shared_data: Path) -> None:
    few, many = (built(made_run.of(made_run.real_questions(shared_data, n), votes=False))[0] for n in (50, 300))
    assert len(few.encode()) < 1_000_000
    assert len(many.encode()) < 1.5 * len(few.encode())
    assert many.count('<details class="case') <= 10


def test_settings_stand_at_the_end_whatever_they_hold(run: EvaluatedRun) -> None:
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
