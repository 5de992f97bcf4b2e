"""What other programs read of a run says the same as its own scores."""

import json
from pathlib import Path

from rankr1_eval.measures.ir import score_run
from rankr1_eval.predictions import export
from rankr1_eval.scoring import EvaluatedRun, Read, SystemRun, score
from rankr1_eval.types import Question, pooled
from rankr1_rag.io.trec import read_qrels, read_run


def test_runs_qrels_and_predictions_score_as_the_run_does(questions: list[Question], tmp_path: Path) -> None:
    corpus = pooled(questions)
    orders = {
        one.query.id: tuple(passage.id for passage in corpus[place : place + 9]) for place, one in enumerate(questions)
    }
    reads = {one.query.id: Read(one.answers[0] if place % 2 else "", "said") for place, one in enumerate(questions)}
    row = SystemRun("rank-r1:votes=3", orders=orders, reads={5: reads})
    run = EvaluatedRun("demo", "hotpotqa", tuple(questions), {one.id: one for one in corpus}, 9, (row,))
    export(run, tmp_path)
    own = score(run).systems["rank-r1:votes=3"].estimates
    found = score_run(
        read_run(tmp_path / "runs" / "rank-r1_votes=3.trec"),
        read_qrels(tmp_path / "supports.qrels"),
        ["R@5", "nDCG@10"],
    )
    for name in ("R@5", "nDCG@10"):
        assert sum(found.each[name].values()) / len(questions) == own[name].mean
    answers = json.loads((tmp_path / "predictions" / "rank-r1_votes=3@5.json").read_text())
    assert answers == {id: read.answer for id, read in reads.items()}


def test_what_an_earlier_command_wrote_goes_and_what_others_wrote_stays(
    questions: list[Question], tmp_path: Path
) -> None:
    for name in ("rerank", "read", "runs", "predictions"):
        (tmp_path / name).mkdir()
    (tmp_path / "rerank" / "dense.jsonl").touch()
    ours, theirs = [tmp_path / "runs" / "dense.trec", tmp_path / "predictions" / "dense@5.json"], []
    for name in ("runs/mine.trec", "predictions/mine.json", "predictions/dense-of-mine@5.json"):
        theirs.append(tmp_path / name)
    for path in (*ours, *theirs):
        path.write_text("before")
    export(EvaluatedRun("demo", "hotpotqa", tuple(questions), {}, 9, ()), tmp_path)
    assert not any(path.exists() for path in ours)
    assert all(path.read_text() == "before" for path in theirs)
