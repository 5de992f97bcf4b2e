"""The report of a run as files: what is on the page and in the Markdown, and what never gets onto them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rankr1_eval.baselines import FirstStage
from rankr1_eval.cli.table import table
from rankr1_eval.report import write_report
from rankr1_eval.report.markdown import markdown
from rankr1_eval.report.page import page
from rankr1_eval.scoring import EvaluatedRun, SystemRun, score
from rankr1_eval.types import Difference, Question
from rankr1_rag.explain import clean
from rankr1_rag.reader import Read
from tests.eval import evaluations
from tests.eval.evaluations import ALL, Model
from tests.html_pages import ParsedPage, check_in_browser, check_policy, needs_chromium

TAGS = """
b bdi blockquote body caption circle dd details div dl dt em figcaption figure footer g h1 h2 h3 h4 head header html li
line main meta ol p path rect section small span style summary svg table tbody td text th thead title tr ul
"""


HOSTILE = (
    "</style><script>alert(1)</script>\"onmouseover=alert(2) '</title><img src=http://evil.example/x onerror=alert(3)>"
    "{{ 7 * 7 }}{% raw %}|*b*|`c`<!-- <svg onload=alert(4)>"
    "\x00\x1b[31m\x9b5m\x7f\ud800\u202etxet\u2066\u2029&lt;b&gt;</think><answer>[1]</answer>"
)
"""What a stranger may write into a question, a passage or an answer."""


def made(questions: Sequence[Question], path: Path, systems: str = ALL, **other: Any) -> EvaluatedRun:
    return evaluations.run(questions, Model(questions, skill=0.8), path, systems, first_stage=FirstStage(n=20), **other)


@pytest.fixture(scope="module")
def run(real: list[Question], tmp_path_factory: pytest.TempPathFactory) -> EvaluatedRun:
    return made(real[:24], tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bad(run: EvaluatedRun) -> EvaluatedRun:
    """The same hostile text in every place that a stranger can fill, ids left alone."""
    own = {"title": HOSTILE, "text": HOSTILE}
    systems = []
    for system in run.systems:
        rankings = {
            id: replace(
                one,
                candidates=tuple(replace(passage, **own) for passage in one.candidates),
                trace=tuple(replace(comparison, reasoning=HOSTILE * 40) for comparison in one.trace),
            )
            for id, one in system.rankings.items()
        }
        reads = {
            k: dict.fromkeys(ids, Read(HOSTILE * (1 if k % 2 else 30), HOSTILE)) for k, ids in system.reads.items()
        }
        name = f"rank-r1:{HOSTILE}" if system.name.startswith("rank-r1:") else system.name
        systems.append(replace(system, name=name, reads=reads, rankings=rankings))
    questions = tuple(
        replace(q, query=replace(q.query, text=HOSTILE), answers=(HOSTILE,) * 6, type=HOSTILE) for q in run.questions
    )
    passages = {id: replace(one, **own) for id, one in run.passages.items()}
    texts = {"name": HOSTILE, "settings": {HOSTILE: HOSTILE}}
    return replace(run, questions=questions, passages=passages, systems=tuple(systems), **texts)


def built(run: EvaluatedRun) -> tuple[str, str]:
    scores = score(run)
    return page(run, scores), markdown(run, scores)


def test_the_page_has_known_tags_and_no_inline_style_or_script(run: EvaluatedRun, bad: EvaluatedRun) -> None:
    for source in (built(run)[0], built(bad)[0]):
        check_policy(source)
        seen = ParsedPage(source)
        assert seen.tags <= set(TAGS.split())
        assert not {name for name, _ in seen.attributes if name.startswith("on") or name in ("style", "src", "href")}


def test_hostile_text_is_shown_as_text_and_breaks_no_table_of_the_markdown(bad: EvaluatedRun) -> None:
    source, plain = built(bad)
    assert " ".join(clean(HOSTILE).split())[:100] in ParsedPage(source).text
    assert "{{ 7 * 7 }}" in ParsedPage(source).text
    for text in (source, plain):
        assert not set(text) & {"\x00", "\x1b", "\x9b", "\u202e", "\u2066", "\ud800"}
    assert "<script" not in plain
    assert "<img" not in plain
    for block in plain.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", each)) for each in block.splitlines()}) == 1


def test_the_same_run_gives_the_same_bytes(run: EvaluatedRun, tmp_path: Path) -> None:
    write_report(run, score(run), tmp_path)
    written = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert written == dict(zip(("report.html", "report.md"), built(run), strict=True))


def test_an_old_report_stays_where_the_new_one_cannot_be_made(run: EvaluatedRun, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(AttributeError):
        write_report(replace(run, questions=(None,)), score(run), tmp_path)  # type: ignore[arg-type]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"report.html": "old"}


def test_every_system_every_section_and_the_reasoning_are_there(run: EvaluatedRun) -> None:
    source = built(run)[0]
    text = ParsedPage(source).text
    systems = "No rerank, Oracle, Random order, Rank-R1, votes 3, Gold context, No context"
    sections = "All systems, Moves of the supports, Results by group, Greatest gains, Cost"
    sentences = "F1 of the answers with k passages read, speaks of it directly, Chosen from"
    assert [part for part in f"{systems}, {sections}, {sentences}".split(", ") if part not in text] == []
    drawings = re.findall(r"<(svg|figure) [^>]*role=\"img\"[^>]*aria-label=\"([^\"]*)\"", source)
    assert len(drawings) >= 5
    assert all(len(label) > 40 for _, label in drawings)


def test_one_k_is_drawn_as_bars_and_one_question_is_called_one(run: EvaluatedRun, tmp_path: Path) -> None:
    source, plain = built(made(run.questions[:1], tmp_path, ks=(5,)))
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


def test_a_small_p_is_not_0_on_the_terminal(run: EvaluatedRun) -> None:
    scores, console = score(run), Console(file=io.StringIO())
    ours = replace(scores.systems["rank-r1"], differences={"F1@5": Difference(0.2, 0.1, 0.3, 0.0001)})
    console.print(table(run, replace(scores, systems={"rank-r1": ours}), 5))
    assert "p <.001" in console.file.getvalue()


def test_a_model_that_names_nothing_is_an_alarm(run: EvaluatedRun, tmp_path: Path) -> None:
    source = built(evaluations.run(run.questions[:4], lambda _: "hm", tmp_path, "rank-r1", reader=None))[0]
    assert "100 % of the comparisons gave no answer that could be parsed" in ParsedPage(source).text
    assert 'class="figure alarm"' in source


def test_fifty_questions_make_a_small_page_and_many_list_only_the_extremes(
    real: list[Question], tmp_path: Path
) -> None:
    few, many = (built(made(real[:n], tmp_path / str(n), "none,rank-r1", ks=(5,)))[0] for n in (50, 200))
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
def test_a_browser_accepts_the_page(run: EvaluatedRun, bad: EvaluatedRun, tmp_path: Path) -> None:
    for name, each in (("ordinary", run), ("hostile", bad)):
        (tmp_path / name).mkdir()
        write_report(each, score(each), tmp_path / name)
    dom = check_in_browser(tmp_path / "ordinary" / "report.html", tmp_path / "hostile" / "report.html")
    assert dom.count("<h2") >= 5
