"""The study of selection algorithms under simulated judges, on the real BM25 run of TREC DL 2019."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from rankr1_eval.cli.app import app
from rankr1_eval.simulation.judges import JUDGES, JudgedQuery, judge_named, judged_queries, judges_named, utilities
from rankr1_eval.simulation.picture import frontier, picture
from rankr1_eval.simulation.study import IDEAL, NONE, WAYS, Setting, Study, played, study, way_named, ways_named
from rankr1_eval.simulation.tables import as_json, as_markdown
from rankr1_rag.cli.options import UsageError
from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import Qrels
from rankr1_rag.selection import ALGORITHMS

Queries = tuple[list[JudgedQuery], Qrels]

pytestmark = pytest.mark.third_party

SMALL = Setting(depth=30, k=5, size=6, repeats=2)
EVERY = (*JUDGES, "first:1:0", "circular:0.1")


@pytest.fixture(scope="module")
def few(dl19_files: dict[str, Path]) -> Queries:
    """Six real queries."""
    played, qrels, _ = judged_queries(dl19_files["run"], dl19_files["qrels"], SMALL.depth)
    return played[:6], {case.query: qrels[case.query] for case in played[:6]}


def made(few: Queries, judges: Sequence[str], ways: Sequence[str], setting: Setting = SMALL) -> Study:
    return study(*few, setting, judges_named(judges), ways_named(ways))


def figures(study: Study) -> dict[tuple[str, str], Any]:
    return {(line.judge, line.way): (line.scores, line.difference) for line in study.lines}


def invoked(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["selection", *map(str, arguments)])


def test_a_perfect_judge_gives_the_ideal_ndcg_with_every_exact_algorithm(few: Queries) -> None:
    result = made(few, ["perfect"], WAYS)
    for line in result.lines:
        assert line.scores["ndcg"] == result.bounds[IDEAL]["ndcg"], line.way
        assert line.scores["recall"].mean == 1
        assert line.difference is None or (line.difference.low, line.difference.high) == (0, 0)


def test_the_bounds_are_those_of_the_runs_own_order_and_of_the_ideal_one(dl19_files: dict[str, Path]) -> None:
    def dcg(grades: Sequence[int]) -> float:
        return sum(grade / math.log2(2 + place) for place, grade in enumerate(sorted(grades, reverse=True)[:10]))

    found, qrels, left_out = judged_queries(dl19_files["run"], dl19_files["qrels"], 100)
    result = made((found, qrels), ["perfect"], ["window"], Setting(repeats=1))
    ideal = [dcg(one.grades) / dcg(list(qrels[one.query].values())) for one in found]
    assert result.bounds[NONE]["ndcg"].mean == pytest.approx(0.5058, abs=5e-5)
    assert result.bounds[IDEAL]["ndcg"].mean == pytest.approx(sum(ideal) / len(ideal))
    assert (result.queries, left_out, result.reference) == (43, [], "window")


def test_figures_depend_on_the_seed_and_on_no_order_and_no_global_random_state(few: Queries) -> None:
    judges, ways = ["noisy:0.5", "last:1:0.5", "circular:1"], ["ahead", "tournament", "window:3"]
    random.seed(0)
    one = made(few, judges, ways)
    random.seed(1)
    other = made((few[0][::-1], few[1]), judges[::-1], ways[::-1])
    assert (figures(one), one.bounds) == (figures(other), other.bounds)
    assert json.dumps(as_json(one, {})) == json.dumps(as_json(made(few, judges, ways), {}))
    assert figures(one) != figures(made(few, judges, ways, replace(SMALL, seed=1)))


@pytest.mark.parametrize(
    ("name", "size", "comparisons", "rounds"),
    [
        ("window/10x1", 20, 9, 9),
        ("window/10x2", 20, 18, 11),
        ("window/10x2:3", 20, 54, 11),
        ("window/10x2", 10, 38, 21),
    ],
)
def test_windows_of_the_authors_are_ways_and_a_second_pass_mends_the_front(
    name: str, size: int, comparisons: int, rounds: int
) -> None:
    way, worth = way_named(name), [float(one) for one in range(100)]
    found = played(way.make(100, 10, size, 0), judge_named("perfect")(worth, "seed"), way.listwise)
    assert (found.comparisons, found.rounds) == (comparisons, rounds)
    assert found.chosen[:5] == (99, 98, 97, 96, 95)


def test_a_judge_without_noise_is_perfect_and_one_without_bias_is_only_noisy(few: Queries) -> None:
    ways = ["heapsort", "tournament:3", "window"]
    like = {"perfect": ["noisy:0", "circular:0", "ends:0:0"], "noisy:0.5": ["first:0:0.5", "last:0:0.5", "ends:0:0.5"]}
    found = figures(made(few, [name for plain, same in like.items() for name in (plain, *same)], ways))
    for plain, same in like.items():
        assert all(found[judge, way] == found[plain, way] for judge in same for way in ways)


# Judges


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=25),
    st.sampled_from(EVERY),
    st.sampled_from([*ALGORITHMS, "voted"]),
    st.integers(1, 30),
    st.integers(2, 8),
)
def test_any_judge_ends_any_selection_and_answers_with_the_whole_set_and_the_same_again(
    grades: list[int], judge: str, name: str, k: int, size: int
) -> None:
    way = way_named("heapsort:3" if name == "voted" else name)
    opinion = judge_named(judge)(utilities(grades, "seed"), "seed")
    found = played(way.make(len(grades), k, size, 0), opinion, way.listwise)
    assert len(set(found.chosen)) == len(found.chosen) == min(k, len(grades))
    assert set(found.chosen) <= set(range(len(grades)))
    assert found.comparisons <= found.passages_read / 2
    shown = tuple(range(len(grades)))[::-1]
    assert len(shown) == 1 or sorted(opinion(shown, 0)) == sorted(shown)
    assert len(shown) == 1 or opinion(shown, 3) == judge_named(judge)(utilities(grades, "seed"), "seed")(shown, 3)


def test_a_higher_grade_is_always_worth_more_and_equal_grades_are_told_apart() -> None:
    worth = utilities([0] * 40 + [1] * 40, "seed")
    assert max(worth[:40]) < min(worth[40:]) - 0.4
    assert len(set(worth)) == 80


def test_a_noisy_judge_prefers_the_better_with_the_odds_of_plackett_and_luce() -> None:
    opinion = judge_named("noisy:0.5")([1.0, 0.5], "seed")
    wins = Counter(opinion((0, 1), time)[0] for time in range(4000))
    assert wins[0] / 4000 == pytest.approx(math.e / (1 + math.e), abs=0.02)


@pytest.mark.parametrize(
    ("judge", "order"),
    [("first:5:0", (3, 1, 2, 0)), ("last:5:0", (0, 2, 1, 3)), ("ends:5:0", (3, 0, 2, 1)), ("perfect", (3, 2, 1, 0))],
)
def test_a_judge_that_likes_a_place_sees_passages_worse_elsewhere(judge: str, order: tuple[int, ...]) -> None:
    assert judge_named(judge)([0.1, 0.2, 0.3, 0.4], "seed")((3, 1, 2, 0), 0) == order


def test_a_circular_judge_keeps_to_its_preferences_and_has_circles_among_them() -> None:
    opinion = judge_named("circular:2")(utilities([1] * 12, "seed"), "seed")
    beats = {(i, j) for i in range(12) for j in range(12) if i != j and opinion((i, j), 0)[0] == i}
    assert all(((i, j) in beats) != ((j, i) in beats) for i in range(12) for j in range(i))
    assert all(opinion((j, i), 7)[0] == i for i, j in beats)
    assert any((j, k) in beats and (k, i) in beats for i, j in beats for k in range(12))
    wins = Counter(i for i, _ in beats)
    assert wins[opinion(tuple(range(12)), 0)[0]] == max(wins.values())


# Bad arguments and bad files


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--depth", 5, "-k", 6], r"k=6: at least 1, and at most the depth, 5"),
        (["--size", 1], r"size=1: a set holds 2 to 20 passages"),
        (["--repeats", 0], r"repeats=0: at least 1"),
        (["--algorithm", "quicksort"], r"no algorithm is called 'quicksort': there are ahead, bubblesort"),
        (["--algorithm", "heapsort:0"], r"'0' is not a whole number from 1"),
        (["--algorithm", "ahead", "--algorithm", "ahead"], r"algorithm 'ahead' is named twice"),
        (["--algorithm", "heapsort/10x2"], r"'heapsort/10x2': only window has steps and passes, as window/STEPxPASSES"),
        (["--algorithm", "window/10"], r"as window/STEPxPASSES, 10x2 say"),
        (["--algorithm", "window/20x1"], r"as window/STEPxPASSES"),
        (["--algorithm", "window/10x0"], r"as window/STEPxPASSES"),
        (["--judge", "honest"], r"no judge is called 'honest': there are perfect, noisy:NOISE"),
        (["--judge", "noisy"], r"no judge is called 'noisy'"),
        (["--judge", "noisy:-1"], r"judge 'noisy:-1': '-1' is not a number from 0"),
        (["--judge", "noisy:much"], r"judge 'noisy:much': 'much' is not a number from 0"),
        (["--judge", "perfect", "--judge", "perfect"], r"judge 'perfect' is named twice"),
        (["--out", __file__], r"not a folder that can be written to"),
    ],
)
def test_a_wrong_argument_is_told_with_its_value(arguments: list[object], told: str) -> None:
    error = invoked("--run", "no.run", "--qrels", "no.qrels", *arguments).exception
    assert isinstance(error, UsageError | FileError)
    assert re.search(told, str(error))


@pytest.mark.parametrize(
    ("run", "qrels", "told"),
    [
        ("q Q0 a 1 2 t\nq2 Q0 a 1 2 t\n", "q 0 a 1\n", r"qrels: no judgement of query 'q2' of .*run"),
        ("q Q0 a 1 2 t\nq Q0 b 2 1 t\n", "q 0 a 1\nother 0 a 1\n", r"1 judged .* not in the run .* left out: other"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, run: str, qrels: str, told: str) -> None:
    (tmp_path / "run").write_text(run)
    (tmp_path / "qrels").write_text(qrels)
    done = invoked("--run", tmp_path / "run", "--qrels", tmp_path / "qrels", "--depth", 2, "-k", 1, "--repeats", 1)
    assert done.exit_code == 0 or isinstance(done.exception, FileError)
    assert re.search(told, done.stdout or str(done.exception))


def test_ties_keep_the_order_of_the_file_and_unjudged_or_junk_is_grade_0(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("q Q0 b 1 1 t\nq Q0 a 2 1 t\nq Q0 c 3 1 t\n")
    (tmp_path / "qrels").write_text("q 0 a 2\nq 0 b -1\nother 0 a 1\n")
    found, qrels, left_out = judged_queries(tmp_path / "run", tmp_path / "qrels", 3)
    assert found == [JudgedQuery("q", ("b", "a", "c"), (0, 2, 0))]
    assert (list(qrels), left_out) == (["q"], ["other"])


# The command and the picture


def test_the_command_writes_its_files_and_prints_the_same_json(tmp_path: Path, dl19_files: dict[str, Path]) -> None:
    folder = tmp_path / "new" / "study"
    small = ["--depth", 12, "-k", 3, "--size", 5, "--repeats", 1, "--judge", "noisy:1", "--judge", "last:1:0.5"]
    told = invoked("--run", dl19_files["run"], "--qrels", dl19_files["qrels"], *small, "--out", folder, "--json")
    assert told.exit_code == 0
    result = json.loads(told.stdout)
    assert json.loads((folder / "selection.json").read_text()) == result
    assert list(result["judges"]) == ["noisy:1", "last:1:0.5"]
    assert set(result["judges"]["noisy:1"]) == set(WAYS)
    assert result["settings"]["depth"] == 12
    markdown = (folder / "selection.md").read_text()
    assert markdown.count("| no rerank |") == markdown.count("| ideal order |") == 2
    assert "--depth 12 --k 3 --size 5 --repeats 1 --judge noisy:1 --judge last:1:0.5`" in markdown
    with Image.open(folder / "selection.png") as image:
        image.load()
        assert (image.format, image.width > 1000) == ("PNG", True)
    ElementTree.fromstring((folder / "selection.svg").read_text())


def test_the_table_on_the_terminal_holds_every_algorithm_and_both_bounds(dl19_files: dict[str, Path]) -> None:
    small = ["--depth", 12, "-k", 3, "--size", 12, "--repeats", 1, "--judge", "noisy:1"]
    told = invoked("--run", dl19_files["run"], "--qrels", dl19_files["qrels"], *small).stdout
    assert [name for name in (NONE, IDEAL, *WAYS) if name not in told] == []
    assert max(map(len, told.splitlines())) <= 80


def test_one_candidate_needs_no_comparison_and_is_still_drawn() -> None:
    few = [JudgedQuery("q", ("a",), (1,))], {"q": {"a": 1, "b": 0}}
    result = made(few, ["noisy:1"], WAYS, Setting(depth=1, k=1, repeats=1))
    assert all(line.scores["comparisons"].mean == 0 and line.scores["ndcg"].mean == 1 for line in result.lines)
    assert picture(result, "svg") == picture(result, "svg")
    assert "nDCG@1" in as_markdown(result, "command")


def test_the_frontier_holds_what_is_not_both_dearer_and_no_better() -> None:
    points = [(3.0, 0.5), (1.0, 0.4), (2.0, 0.4), (2.0, 0.6), (5.0, 0.7), (4.0, 0.6)]
    assert frontier(points) == [(1.0, 0.4), (2.0, 0.6), (5.0, 0.7)]
