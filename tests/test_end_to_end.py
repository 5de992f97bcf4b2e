"""Real questions, real passages, a real first stage, the real embedded model."""

import json
from pathlib import Path

import pytest

from rankr1_rag import Cost, Passage, Query, Ranking, Reranker
from rankr1_rag.demo import Question, first_stage

pytest.importorskip("openvino_genai", reason="the embedded backend is not installed")
pytest.importorskip("bm25s", reason="the first stage is not installed")


def hotpotqa(path: Path) -> tuple[list[Question], list[Passage]]:
    """The questions of an official file, and all their paragraphs pooled."""
    records = json.loads((path / "hotpotqa" / "dev_distractor_sample.json").read_text(encoding="utf-8"))
    pool = {f"{title}\n{' '.join(lines)}": (title, " ".join(lines)) for r in records for title, lines in r["context"]}
    questions = [
        Question(
            Query(r["_id"], r["question"]),
            r["answer"],
            tuple(dict.fromkeys(title for title, _ in r["supporting_facts"])),
            r["type"],
        )
        for r in records
    ]
    return questions, [Passage(title, text, title) for title, text in pool.values()]


@pytest.mark.slow
def test_twenty_questions_of_hotpotqa_lose_no_candidate_and_their_cost_adds_up(shared_data: Path) -> None:
    questions, pool = hotpotqa(shared_data)
    found = first_stage(questions[:20], pool, 20)
    with Reranker(k=5, think_tokens=8) as reranker:
        items = [(question.query, best) for question, best in zip(questions, found, strict=False)]
        results = dict(reranker.rank_many(items))
    assert sorted(results) == list(range(20))
    total = Cost()
    for index, ranking in results.items():
        assert isinstance(ranking, Ranking), ranking
        assert sorted(ranking.order) == list(range(20))
        assert sorted(map(id, ranking.passages)) == sorted(map(id, found[index]))
        assert list(ranking.order[5:]) == sorted(ranking.order[5:])
        assert ranking.cost.unparsed == 0
        assert ranking.cost.prompt_tokens == sum(one.completion.prompt_tokens for one in ranking.trace) > 0
        total += ranking.cost
    assert total.comparisons == sum(len(ranking.trace) for ranking in results.values() if isinstance(ranking, Ranking))
    assert total.passages_read == sum(len(c.set) for r in results.values() if isinstance(r, Ranking) for c in r.trace)
