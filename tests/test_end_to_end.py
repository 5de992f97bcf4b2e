"""Real questions, real passages, a real first stage, the real embedded model."""

from pathlib import Path

import pytest

from bench import hotpotqa
from rankr1_rag import Cost, Ranking, Reranker
from rankr1_rag.demo import BM25

pytest.importorskip("openvino_genai", reason="the embedded backend is not installed")
pytest.importorskip("bm25s", reason="the first stage is not installed")


@pytest.mark.slow
def test_questions_of_hotpotqa_lose_no_candidate_and_their_cost_adds_up(shared_data: Path) -> None:
    questions, pool = hotpotqa.load(shared_data / "hotpotqa" / "dev_distractor_sample.json")
    first_stage = BM25(pool)
    found = [first_stage.search(question.query.text, 8) for question in questions[:2]]
    with Reranker(k=2, reasoning_tokens=8, fusion="off") as reranker:
        items = [(question.query, best) for question, best in zip(questions, found, strict=False)]
        results = dict(reranker.rank_many(items))
    assert sorted(results) == [0, 1]
    total = Cost()
    for index, ranking in results.items():
        assert isinstance(ranking, Ranking), ranking
        assert sorted(ranking.order) == list(range(8))
        assert sorted(map(id, ranking.passages)) == sorted(map(id, found[index]))
        assert list(ranking.order[2:]) == sorted(ranking.order[2:])
        assert ranking.cost.unparsed == 0
        assert ranking.cost.prompt_tokens == sum(one.completion.prompt_tokens for one in ranking.trace) > 0
        total += ranking.cost
    assert total.comparisons == sum(len(ranking.trace) for ranking in results.values() if isinstance(ranking, Ranking))
    assert total.passages_read == sum(len(c.set) for r in results.values() if isinstance(r, Ranking) for c in r.trace)
