"""`rankr1-eval compare`: two runs on what they have in common, and what is said where that is little or nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.compare import ScoredRun, groups, paired, read
from rankr1_eval.data import load
from rankr1_eval.report.page import versus, versus_headline
from rankr1_eval.run_folder import question_record
from rankr1_eval.scoring import EvaluatedRun, SystemRun, differences, score, to_json
from rankr1_eval.types import Question
from rankr1_rag.errors import FileError
from tests.eval import evaluations
from tests.eval.evaluations import ALL, Model, command

pytestmark = pytest.mark.third_party

SYSTEMS = "none,oracle,random,rank-r1,gold,no-context"


def made(questions: Sequence[Question], path: Path, skill: float, systems: str) -> EvaluatedRun:
    return evaluations.run(questions, Model(questions, skill=skill), path, systems, first_stage=FirstStage(n=20))


@pytest.fixture(scope="module")
def run(real: list[Question], tmp_path_factory: pytest.TempPathFactory) -> EvaluatedRun:
    return made(real[:24], tmp_path_factory.mktemp("run"), 0.0, SYSTEMS)


@pytest.fixture(scope="module")
def better(real: list[Question], tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    path = tmp_path_factory.mktemp("better")
    return kept(made(real[:24], path / "out", 1.0, SYSTEMS), path / "large")


@pytest.fixture(scope="module")
def scored(real: list[Question], tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    """A run with two systems that rerank."""
    path = tmp_path_factory.mktemp("systems")
    return kept(made(real[:40], path / "out", 0.8, ALL), path / "several")


def kept(run: EvaluatedRun, folder: Path, first: int = 0, last: int | None = None, **other: Any) -> ScoredRun:
    """The run on these of its questions, read from a folder as `qa` leaves it."""
    questions = run.questions[first:last]
    ids = {question.query.id for question in questions}
    systems = []
    for system in run.systems:
        reads = {k: {id: one for id, one in found.items() if id in ids} for k, found in system.reads.items()}
        orders = {id: order for id, order in system.orders.items() if id in ids}
        systems.append(SystemRun(system.name, orders, reads))
    run = replace(run, **{"questions": questions, "systems": tuple(systems), **other})
    folder.mkdir(parents=True, exist_ok=True)
    head = {"rankr1_journal": 1, "kind": "load", "settings": {"dataset": run.dataset, "data": "abc", "pool": 0}}
    lines = [head, *({"id": one.query.id, **question_record(one)} for one in run.questions)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (folder / "scores.json").write_text(json.dumps(to_json(score(run))))
    return read(folder)


def test_a_difference_is_the_second_minus_the_first(run: EvaluatedRun, better: ScoredRun, tmp_path: Path) -> None:
    found = paired(kept(run, tmp_path), better)
    by = {(pair.system, pair.measure): pair for pair in found.pairs}
    assert by["none", "R@5"].difference.mean == 0
    assert by["rank-r1", "R@5"].difference.mean > 0
    for pair in found.pairs:
        assert pair.second - pair.first == pytest.approx(pair.difference.mean, abs=1e-9)
        assert pair.n == 24
    assert found.notes == ()


def test_only_common_questions_count_and_that_is_said(run: EvaluatedRun, tmp_path: Path) -> None:
    first, second = kept(run, tmp_path / "a", 4), kept(run, tmp_path / "b", 0, -3)
    found = paired(first, second)
    assert {pair.n for pair in found.pairs} == {17}
    assert any("a has 20, b 21; all figures are over the 17 that are in both" in note for note in found.notes)
    pair = next(pair for pair in found.pairs if (pair.system, pair.measure) == ("rank-r1", "R@5"))
    each = second.scores.systems["rank-r1"].each["R@5"]
    assert pair.second == pytest.approx(sum(each[one.query.id] for one in run.questions[4:-3]) / 17)


def test_other_data_and_systems_are_noted_and_nothing_in_common_is_an_error(run: EvaluatedRun, tmp_path: Path) -> None:
    whole = kept(run, tmp_path / "a")
    fewer = kept(run, tmp_path / "b", systems=run.systems[:3], dataset="musique")
    notes = "\n".join(paired(whole, fewer).notes)
    assert "not the same data set: a has hotpotqa, b has musique" in notes
    assert "systems that only one of them has: gold, no-context, rank-r1" in notes
    with pytest.raises(ValueError, match="nothing in common: no question is in both"):
        paired(kept(run, tmp_path / "a", 0, 12), kept(run, tmp_path / "b", 12))
    none, oracle = (kept(run, tmp_path / one.name, systems=(one,)) for one in run.systems[:2])
    with pytest.raises(ValueError, match=r"no system with a measure is in both \(systems none; systems oracle\)"):
        paired(none, oracle)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not the scores of a run"),
        (b'{"rankr1_eval": 99, "systems": {}, "groups": {}}', "scores of version 99, this program reads version 2"),
        (b'{"rankr1_eval": 1, "rows": {}, "groups": {}}', "scores of version 1, this program reads version 2"),
        (b'{"rankr1_eval": 1, "systems": {"none": {}}, "groups": {}}', "damaged"),
    ],
)
def test_a_file_without_scores_is_named(content: bytes, problem: str, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    target.write_bytes(content)
    for path in (target, tmp_path):
        with pytest.raises(FileError, match=problem) as caught:
            read(path)
        assert str(target) in str(caught.value)


def test_a_folder_without_scores_is_no_unfinished_run(scored: ScoredRun, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=re.escape("no scores.json in it")):
        read(tmp_path)
    (tmp_path / "questions.jsonl").write_text("")
    for path, problem in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "unfinished")):
        assert problem in command("compare", scored.path, path, code=2).stderr


def test_the_command_prints_tables_json_and_a_page(run: EvaluatedRun, better: ScoredRun, tmp_path: Path) -> None:
    folders = kept(run, tmp_path / "small").path.parent, better.path
    told = command("compare", *folders, "--html", tmp_path / "both.html").stdout
    assert "Rank-R1, 24 questions" in told
    assert "small" in told
    assert re.search(r"[^p] < 0\.001", told)
    page = (tmp_path / "both.html").read_text("utf-8")
    assert "Content-Security-Policy" in page
    assert "Rank-R1: Support recall@5" in page
    found = json.loads(command("compare", *folders, "--json").stdout)
    assert [one["name"] for one in found["runs"]] == ["small", "large"]
    assert {"system", "against", "group", "measure", "first", "second", "difference", "n"} == set(found["pairs"][0])


def test_a_page_says_what_stands_out(run: EvaluatedRun, better: ScoredRun, tmp_path: Path) -> None:
    same = paired(kept(run, tmp_path / "a"), kept(run, tmp_path / "b<script>"))
    assert versus_headline(same).endswith(f"Of {len(same.pairs)} differences, 0 are statistically significant.")
    assert "<script" not in versus(same)
    assert "cannot tell from chance" not in versus_headline(paired(same.first, better))


def test_every_other_system_of_a_run_is_compared_with_a_chosen_one(scored: ScoredRun) -> None:
    found = paired(scored, scored, "rank-r1", ["R@2", "R@5", "All@5"])
    pairs = {(pair.system, pair.measure): pair for pair in found.pairs}
    assert {system for system, _ in pairs} == {"none", "oracle", "random", "rank-r1:votes=3"}, "gold has no order"
    assert {measure for _, measure in pairs} == {"R@2", "R@5", "All@5"}
    systems = scored.scores.systems
    for (system, measure), pair in pairs.items():
        assert (pair.against, pair.group, pair.n) == ("rank-r1", "", 40)
        assert pair.difference == differences(systems[system], systems["rank-r1"])[measure]
        means = [systems[name].estimates[measure].mean for name in ("rank-r1", system)]
        assert [pair.first, pair.second] == pytest.approx(means)
    assert found.notes == ()
    against_none = paired(scored, scored, "none").pairs
    assert {one.measure: one.difference for one in against_none if one.system == "rank-r1"} == (
        systems["rank-r1"].differences
    )


def test_a_system_of_one_run_is_compared_with_systems_of_another(scored: ScoredRun, better: ScoredRun) -> None:
    found = paired(scored, better, "rank-r1:votes=3", ["R@5"])
    assert {pair.system for pair in found.pairs} == {"none", "oracle", "random", "rank-r1"}
    assert {(pair.against, pair.n) for pair in found.pairs} == {("rank-r1:votes=3", 24)}
    assert "Rank-R1, votes 3 in several" in versus(found)


def test_the_questions_of_a_type_are_compared_apart(scored: ScoredRun, real: list[Question]) -> None:
    found = paired(scored, scored, "rank-r1", ["R@5"], groups(scored, "type"))
    pairs = {pair.group: pair for pair in found.pairs if pair.system == "rank-r1:votes=3"}
    assert list(pairs) == ["", "bridge", "comparison"]
    assert pairs[""].n == pairs["bridge"].n + pairs["comparison"].n == 40
    changed = 0.0
    for type in ("bridge", "comparison"):
        own = [one.query.id for one in real[:40] if one.type == type]
        each = [scored.scores.systems[system].each["R@5"] for system in ("rank-r1", "rank-r1:votes=3")]
        first, second = (sum(one[id] for id in own) / len(own) for one in each)
        assert (pairs[type].first, pairs[type].second) == pytest.approx((first, second))
        assert pairs[type].difference.mean == pytest.approx(second - first)
        assert pairs[type].difference.low <= second - first <= pairs[type].difference.high
        changed += len(own) * (second - first)
    assert changed / 40 == pytest.approx(pairs[""].difference.mean)


def test_questions_are_compared_apart_by_hops_as_the_data_set_says(shared_data: Path, tmp_path: Path) -> None:
    questions = load("musique", shared_data / "musique" / "musique_ans_v1.0_dev_sample.jsonl")
    first = SystemRun("none", {one.query.id: tuple(passage.id for passage in one.passages) for one in questions})
    second = SystemRun("rank-r1", {one.query.id: (*one.supports,) for one in questions})
    whole = EvaluatedRun("run", "musique", tuple(questions), {}, 20, (first, second))
    scored = kept(whole, tmp_path)
    found = paired(scored, scored, "none", ["All@5"], groups(scored, "hops"))
    assert {pair.group: pair.n for pair in found.pairs} == {"": 100, **Counter(f"{one.hops} hops" for one in questions)}
    assert [pair.group for pair in found.pairs] == ["", "2 hops", "3 hops", "4 hops"]
    assert {pair.second for pair in found.pairs} == {1.0}
    without_hops = (*(replace(one, hops=None) for one in questions[:3]), *questions[3:])
    scored = kept(whole, tmp_path / "odd", questions=without_hops)
    assert paired(scored, scored, "none", ["R@5"], groups(scored, "hops")).notes == (
        "3 questions of odd are in no group and count only in the whole",
    )


def test_a_missing_system_or_measure_is_named_with_those_that_are_there(scored: ScoredRun, tmp_path: Path) -> None:
    for against, measures, problem in (
        ("rank-r1:hops=2", (), "no system 'rank-r1:hops=2' to compare with: it has none, random, oracle, rank-r1"),
        ("rank-r1", ["R@4"], "measure 'R@4' is unknown: must be one of R@2, R@3, R@5"),
        ("gold", ["R@5"], "can be compared with 'gold'"),
    ):
        with pytest.raises(ValueError, match=problem):
            paired(scored, scored, against, measures)
    alone = tmp_path / "scores.json"
    alone.write_bytes(scored.path.read_bytes())
    with pytest.raises(FileError, match="missing; it holds each question's type"):
        groups(read(alone), "type")


def test_the_command_compares_the_systems_of_one_run(scored: ScoredRun, tmp_path: Path) -> None:
    asked = ("compare", scored.path, "--against", "rank-r1", "--measures", "R@5, All@5", "--by", "type")
    told = command(*asked, "--html", tmp_path / "systems.html")
    for text in ("Rank-R1, votes 3, 40 questions", "Rank-R1, votes 3: bridge, 35 questions", "All@5"):
        assert text in told.stdout
    page = (tmp_path / "systems.html").read_text("utf-8")
    assert "Systems of one run side by side" in page
    assert re.search(r"Rank-R1, votes 3: Support recall@5 is [\d.]+ %, .* Rank-R1", page)
    assert re.search(r"Support recall@5 <small><bdi>bridge, \d+ questions</bdi></small>", page)
    found = json.loads(command(*asked, "--json").stdout)
    assert {pair["against"] for pair in found["pairs"]} == {"rank-r1"}
    assert {pair["group"] for pair in found["pairs"]} == {"", "bridge", "comparison"}
    assert "--against with one of its systems" in command("compare", scored.path, code=2).stderr
