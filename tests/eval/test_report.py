"""The report of a run as files: what is on the page and in the Markdown, and what never gets onto them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rankr1_eval.report import write_report
from rankr1_eval.report.markdown import markdown
from rankr1_eval.report.page import page
from rankr1_eval.scoring import EvaluatedRun, Read, SystemRun, score
from rankr1_rag.explain import clean
from tests.eval import made_run

pytestmark = pytest.mark.third_party

TAGS = """
b bdi blockquote body caption circle dd details div dl dt em figcaption figure footer g h1 h2 h3 h4 head header html li
line main meta ol p path rect section small span style summary svg table tbody td text th thead title tr ul
"""
VOID = {"meta"}


class Page(HTMLParser):
    """What a browser would see; a tag left open or closed twice is an error."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = self.style = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


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
        seen = Page(built(each)[0])
        assert seen.tags <= set(TAGS.split())
        assert not {name for name, _ in seen.attributes if name.startswith("on") or name in ("style", "src", "href")}


def test_hostile_text_is_shown_as_text(run: EvaluatedRun) -> None:
    source, plain = built(made_run.hostile(run))
    assert " ".join(clean(made_run.HOSTILE).split())[:100] in Page(source).text
    for text in (source, plain):
        assert not set(text) & {"\x00", "\x1b", "\x9b", "\u202e", "\u2066", "\ud800"}
    assert "{{ 7 * 7 }}" in Page(source).text
    assert "<script" not in plain
    assert "<img" not in plain


def test_hostile_text_breaks_no_table_of_the_markdown(run: EvaluatedRun) -> None:
    for block in built(made_run.hostile(run))[1].split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", each)) for each in block.splitlines()}) == 1


def test_the_policy_allows_the_one_style_sheet_by_its_hash_and_nothing_else(run: EvaluatedRun) -> None:
    seen = Page(built(run)[0])
    policy = next(value for value in seen.values("content") if value.startswith("default-src"))
    digest = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    own = [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert policy.split("; ") == own
    assert "url(" not in seen.style
    assert "@import" not in seen.style


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


def test_every_row_and_every_section_is_there(run: EvaluatedRun) -> None:
    text = Page(built(run)[0]).text
    for name in ("No rerank", "Oracle", "Random order", "Rank-R1", "Rank-R1, votes 3", "Gold context", "No context"):
        assert name in text
    for title in ("Every row", "Where the supports went", "For which questions", "best and the worst", "What it costs"):
        assert title in text
    assert "F1 of the answers with k passages read" in text


def test_the_reasoning_stands_beside_the_ranks(run: EvaluatedRun) -> None:
    seen = Page(built(run)[0])
    assert "speaks of it directly" in seen.text
    assert "Chosen from" in seen.text


def test_one_k_is_drawn_as_bars(shared_data: Path) -> None:
    text = Page(built(made_run.of(made_run.real_questions(shared_data, 12), ks=(5,)))[0]).text
    assert "F1 and exact match with 5 passages read" in text


def test_every_drawing_is_told_in_words(run: EvaluatedRun) -> None:
    source = built(run)[0]
    told = [Page(tag + "</svg>").values("aria-label") for tag in re.findall(r"<svg [^>]*role=\"img\"[^>]*>", source)]
    assert len(told) >= 5
    assert all(len(label[0]) > 40 for label in told)


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
    Page(source)
    for text in (Page(source).text, plain):
        assert not re.search(r"\b(nan|inf|None)\b", text)


def test_a_row_without_rankings_or_answers_is_reported(run: EvaluatedRun) -> None:
    bare = {"none": "none", "rank-r1": "cross-encoder:some/Model-L6"}
    rows = tuple(SystemRun(bare[row.name], row.orders) for row in run.systems if row.name in bare)
    source, plain = built(replace(run, systems=rows))
    assert "Cross-encoder Model-L6" in Page(source).text
    assert "The reasoning behind" not in source
    assert "Exact match" not in plain.partition("## How this")[0]


def test_one_question_makes_a_report_that_says_so(run: EvaluatedRun) -> None:
    alone = made_run.of(run.questions[:1])
    source, plain = built(alone)
    assert "One question" in Page(source).text
    assert "One question" in plain


def test_a_failed_ranking_and_missing_answers_are_told(run: EvaluatedRun) -> None:
    id = run.questions[0].query.id
    rows = []
    for row in run.systems:
        rankings = {key: replace(one, failure="503 <busy>") if key == id else one for key, one in row.rankings.items()}
        reads = {k: {key: read for key, read in found.items() if key != id} for k, found in row.reads.items()}
        rows.append(replace(row, rankings=rankings, reads=reads))
    text = Page(built(replace(run, systems=tuple(rows)))[0]).text
    assert "in 1 question the model failed and the first-stage order stands (503 <busy>)" in text
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
    assert "100 % of the comparisons gave no answer that could be parsed" in Page(source).text
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
    text = Page(built(replace(run, settings=odd))[0]).text
    for told in ("a b c", "[1, 2]", json.dumps("x"), "null"):
        assert told in text
    assert "y" * 400 not in text
