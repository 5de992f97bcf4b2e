"""Runs are scored as trec_eval scores them, ties and missing queries included."""

import re
from pathlib import Path
from shutil import which

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from rankr1_eval.measures.ir import compared, parsed, score_run, trec_order
from rankr1_rag.io.trec import Scored, read_qrels, read_run

pytestmark = pytest.mark.third_party

QRELS = {"q1": {"a": 2, "b": 0, "c": 1}, "q2": {"x": 1}}


def scored(**scores: float) -> list[Scored]:
    return [Scored(id, score) for id, score in scores.items()]


def test_every_query_of_a_real_run_scores_as_with_trec_eval_itself(dl19_files: dict[str, Path]) -> None:
    run, qrels = read_run(dl19_files["run"]), read_qrels(dl19_files["qrels"])
    found = score_run(run, qrels, ["nDCG@10", "R@5", "AP", "RR"])
    assert found.estimates["nDCG@10"].mean == pytest.approx(0.5058, abs=5e-5), "as published"
    assert (found.estimates["nDCG@10"].n, found.not_judged, found.not_ranked) == (43, (), ())
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "recall_5", "map", "recip_rank"})
    official = evaluator.evaluate({query: dict(ranked) for query, ranked in run.items()})
    for ours, theirs in {"nDCG@10": "ndcg_cut_10", "R@5": "recall_5", "AP": "map", "RR": "recip_rank"}.items():
        assert found.each[ours] == pytest.approx({query: values[theirs] for query, values in official.items()})


NAMES = {"nDCG@2": "ndcg_cut_2", "R@1": "recall_1", "RR": "recip_rank", "P@1": "P_1", "AP": "map"}
IDS = ["a", "b", "c", "é", "z", "10", "9", "A"]
NEAR = [1.0, 1.00000001, 1.0000002, 0.0, -0.0, -1.0, 16777216.0, 16777217.0, 1e39, 1e300]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(IDS), st.sampled_from(NEAR), min_size=1),
    st.dictionaries(st.sampled_from(IDS), st.integers(-1, 3), min_size=1),
)
def test_ties_and_float32_are_trec_evals(ranked: dict[str, float], judged: dict[str, int]) -> None:
    found = score_run({"q": [Scored(*item) for item in ranked.items()]}, {"q": judged}, [*NAMES, "RR@8"])
    official = pytrec_eval.RelevanceEvaluator({"q": judged}, set(NAMES.values())).evaluate({"q": ranked})["q"]
    for ours, theirs in NAMES.items():
        assert found.each[ours]["q"] == pytest.approx(official[theirs]), ours
    assert found.each["RR@8"] == found.each["RR"], "another program computes it: of the same order all the same"


def test_equal_scores_are_ordered_by_id_the_greater_first_whatever_the_file_says() -> None:
    assert trec_order(scored(a=1.0, c=1.0, b=1.00000001, z=0.5)) == ["c", "b", "a", "z"]
    found = score_run({"q1": scored(a=1.0, b=1.0, c=1.0)}, QRELS, ["RR(rel=2)", "RR(rel=2)@3", "Success@1"])
    assert {name: values["q1"] for name, values in found.each.items()} == pytest.approx(
        {"RR(rel=2)": 1 / 3, "RR(rel=2)@3": 1 / 3, "Success@1": 1}
    )


def test_a_judged_query_that_is_not_ranked_counts_as_0_and_one_without_judgements_is_left_out() -> None:
    found = score_run({"q1": scored(a=2.0, c=1.0)}, QRELS, ["nDCG@10", "RR@10", "Judged@1"])
    assert found.each["nDCG@10"] == {"q1": 1, "q2": 0}
    assert [one.mean for one in found.estimates.values()] == [0.5, 0.5, 0.5]
    assert (found.not_judged, found.not_ranked) == ((), ("q2",))
    run = {"q1": scored(a=1.0), "q2": scored(x=1.0), "q3": scored(a=1.0), "q4": scored(a=1.0)}
    found = score_run(run, QRELS | {"q4": {}}, ["P@1"])
    assert found.each == {"P@1": {"q1": 1, "q2": 1}}
    assert (found.not_judged, found.not_ranked) == (("q3", "q4"), ())


@pytest.mark.parametrize(("excluded", "rr"), [("", 0.5), ("b", 1), ("abc", 0)])
def test_excluded_passages_are_dropped_before_scoring(excluded: str, rr: float) -> None:
    run = {"q1": scored(b=3.0, a=2.0, c=1.0), "q2": scored(x=1.0)}
    assert score_run(run, QRELS, ["RR"], excluded={"q1": {*excluded}}).each["RR"] == {"q1": rr, "q2": 1}


def test_qrels_without_a_query_of_the_run_are_an_error_that_shows_both() -> None:
    with pytest.raises(ValueError, match="no query of the run is judged: the run has '7', the qrels 'q1', 'q2'"):
        score_run({"7": scored(a=1.0)}, QRELS)


@pytest.mark.parametrize(
    "name",
    ["foo", "ndcg10", "nDCG@", "nDCG@0", "R@-1", "R", "nDCG@x", "P@1.5", "R@True", "P@99999999999999999999", "", "1+1",
     "P(bla=1)@5", "P(rel=0)@5", "alpha_nDCG@10", "nDCG(gains={1:'x'})@3", "__import__('os')"],
)  # fmt: skip
def test_a_measure_that_there_is_not_is_named(name: str) -> None:
    problem = re.escape(f"measure {name!r} is unknown: ir_measures cannot compute it, unlike nDCG@10")
    with pytest.raises(ValueError, match=f"^{problem}"):
        score_run({"q1": scored(a=1.0)}, QRELS, ["nDCG@10", name])


@pytest.mark.skipif(which("perl") is None, reason="no Perl, which TREC's script for this measure is in")
def test_a_measure_that_wants_other_ids_is_named() -> None:
    assert score_run({"1": scored(a=1.0)}, {"1": {"a": 1}}, ["ERR@20"]).each["ERR@20"]["1"] > 0
    with pytest.raises(ValueError, match="ERR@20 cannot be computed of these ids"):
        score_run({"q": scored(a=1.0)}, {"q": {"a": 1}}, ["ERR@20"])


def test_a_measure_goes_by_the_name_that_ir_measures_gives_it_and_counts_once() -> None:
    assert [str(one) for one in parsed(["NDCG@10", " nDCG@10", "R(rel=1)@5", "MRR@10"])] == ["nDCG@10", "R@5", "RR@10"]
    with pytest.raises(ValueError, match="at least one measure is needed"):
        parsed([])


def test_runs_are_compared_over_all_judged_queries() -> None:
    good = score_run({"q1": scored(a=2.0), "q2": scored(x=1.0)}, QRELS, ["P@1"])
    bad = score_run({"q1": scored(b=2.0, a=1.0)}, QRELS, ["P@1"])
    found = compared(bad, good)["P@1"]
    assert (found.mean, found.p) == (-1, 0.5)
