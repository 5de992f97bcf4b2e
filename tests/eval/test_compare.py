"""`rankr1-eval compare`: two runs on what they have in common, and what is said where that is little or nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.paired import paired, read
from rankr1_eval.report.versus import headline, versus
from rankr1_eval.results import Run
from rankr1_eval.score import score, to_json
from rankr1_rag.errors import FileError
from tests.eval import made_run


@pytest.fixture(scope="module")
def run(shared_data: Path) -> Run:
    return made_run.of(made_run.real_questions(shared_data, 24), skill=0.0, votes=False)


@pytest.fixture(scope="module")
def better(shared_data: Path) -> Run:
    return made_run.of(made_run.real_questions(shared_data, 24), skill=1.0, votes=False)


def kept(run: Run, folder: Path, dataset: str = "hotpotqa") -> Path:
    """The run's folder as `qa` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"rankr1_eval": 1, "stage": "load", "settings": {"dataset": dataset, "data": "abc", "pool": 0}}
    (folder / "questions.jsonl").write_text(json.dumps(head) + "\n")
    (folder / "scores.json").write_text(json.dumps(to_json(score(run))))
    return folder


def without(run: Run, *ids: str) -> Run:
    """The run without these questions."""
    rows: list[Any] = []
    for row in run.rows:
        reads = {k: {id: one for id, one in found.items() if id not in ids} for k, found in row.reads.items()}
        orders = {id: order for id, order in row.orders.items() if id not in ids}
        rows.append(type(row)(row.name, orders, reads))
    left = tuple(q for q in run.questions if q.query.id not in ids)
    return Run(run.name, run.dataset, left, run.passages, run.candidates, tuple(rows), run.settings)


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rankr1_eval", "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_difference_is_the_second_minus_the_first(run: Run, better: Run, tmp_path: Path) -> None:
    found = paired(read(kept(run, tmp_path / "a")), read(kept(better, tmp_path / "b")))
    by = {(pair.row, pair.measure): pair for pair in found.pairs}
    assert by["none", "R@5"].difference.mean == 0
    assert by["rank-r1", "R@5"].difference.mean > 0
    for pair in found.pairs:
        assert pair.second - pair.first == pytest.approx(pair.difference.mean, abs=1e-9)
        assert pair.n == 24
    assert found.notes == ()


def test_only_common_questions_count_and_that_is_said(run: Run, better: Run, tmp_path: Path) -> None:
    ids = [question.query.id for question in run.questions]
    first = read(kept(without(run, *ids[:4]), tmp_path / "a"))
    second = read(kept(without(better, *ids[-3:]), tmp_path / "b"))
    found = paired(first, second)
    assert {pair.n for pair in found.pairs} == {17}
    assert any("a has 20, b 21; all figures are over the 17 that are in both" in note for note in found.notes)
    pair = next(pair for pair in found.pairs if (pair.row, pair.measure) == ("rank-r1", "R@5"))
    each = second.scores.rows["rank-r1"].each["R@5"]
    assert pair.second == pytest.approx(sum(each[id] for id in ids[4:-3]) / 17)


def test_other_data_and_other_rows_are_said(run: Run, tmp_path: Path) -> None:
    fewer = Run(run.name, run.dataset, run.questions, run.passages, 20, run.rows[:3], run.settings)
    found = paired(read(kept(run, tmp_path / "a")), read(kept(fewer, tmp_path / "b", "musique")))
    assert any("not the same data set: a has hotpotqa, b has musique" in note for note in found.notes)
    assert any("rows that only one of them has: gold, no-context, rank-r1" in note for note in found.notes)


def test_nothing_in_common_is_an_error_that_says_why(run: Run, tmp_path: Path) -> None:
    ids = [question.query.id for question in run.questions]
    first, second = kept(without(run, *ids[:12]), tmp_path / "a"), kept(without(run, *ids[12:]), tmp_path / "b")
    with pytest.raises(ValueError, match="nothing in common: not one question is in both"):
        paired(read(first), read(second))
    rows = [Run(run.name, run.dataset, run.questions, {}, 20, (row,), {}) for row in run.rows[:2]]
    with pytest.raises(ValueError, match=r"no row with a measure is in both \(rows none; rows oracle\)"):
        paired(read(kept(rows[0], tmp_path / "c")), read(kept(rows[1], tmp_path / "d")))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no scores of a run"),
        (b'{"rankr1_eval": 99, "rows": {}, "groups": {}}', "no scores of a run"),
        (b'{"rankr1_eval": 1, "rows": {"none": {}}, "groups": {}}', "damaged"),
    ],
)
def test_what_is_no_scores_file_is_named(content: bytes, problem: str, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    target.write_bytes(content)
    for path in (target, tmp_path):
        with pytest.raises(FileError, match=problem) as caught:
            read(path)
        assert str(target) in str(caught.value)


def test_a_folder_without_scores_is_told_apart_from_a_run_that_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=re.escape("no scores.json in it")):
        read(tmp_path)
    (tmp_path / "questions.jsonl").write_text("")
    with pytest.raises(FileError, match="not finished"):
        read(tmp_path)


def test_the_command_prints_tables_json_and_a_page(run: Run, better: Run, tmp_path: Path) -> None:
    folders = kept(run, tmp_path / "small"), kept(better, tmp_path / "large") / "scores.json"
    told = called(*folders, "--html", tmp_path / "both.html")
    assert told.returncode == 0, told.stderr
    assert "Rank-R1, 24 questions" in told.stdout
    assert "small" in told.stdout
    page = (tmp_path / "both.html").read_text("utf-8")
    assert "Content-Security-Policy" in page
    assert "Rank-R1: Support recall@5" in page
    found = json.loads(called(*folders, "--json").stdout)
    assert [one["name"] for one in found["runs"]] == ["small", "large"]
    assert {"row", "measure", "first", "second", "difference", "n"} == set(found["pairs"][0])


def test_the_command_names_what_is_wrong_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "questions.jsonl").write_text("")
    whole = kept(run, tmp_path / "whole")
    for path, problem in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "begun", "not finished")):
        told = called(whole, path)
        assert told.returncode == 2
        assert problem in told.stderr
        assert "Traceback" not in told.stderr


def test_a_page_says_what_stands_out(run: Run, better: Run, tmp_path: Path) -> None:
    same = paired(read(kept(run, tmp_path / "a")), read(kept(run, tmp_path / "b<script>")))
    assert headline(same).endswith(f"Of {len(same.pairs)} differences, 0 stand out.")
    assert "<script" not in versus(same)
    changed = paired(same.first, read(kept(better, tmp_path / "c")))
    assert "cannot tell from chance" not in headline(changed)
