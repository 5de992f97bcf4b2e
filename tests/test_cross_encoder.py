"""The shape of sentence-transformers' cross-encoders, around a reranker."""

import logging
from typing import Any

import pytest

from rankr1_rag import BackendError, LoopError, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.cross_encoder import RankR1CrossEncoder

DOCUMENTS = ["number 3", "number 1", "number 2", "number 0"]
SERVER: dict[str, Any] = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}


@pytest.fixture
def model(judge: Scripted) -> RankR1CrossEncoder:
    """Selects two, knows best."""
    return RankR1CrossEncoder(Reranker(judge, k=2))


def test_results_are_dicts_best_first_and_those_not_selected_keep_their_order(model: RankR1CrossEncoder) -> None:
    results = model.rank("which?", DOCUMENTS)
    assert [tuple(one.values()) for one in results] == [(3, 1.0), (1, 0.75), (0, 0.5), (2, 0.25)]
    assert {(*one, *map(type, one.values())) for one in results} == {("corpus_id", "score", int, float)}
    best = {"corpus_id": 3, "score": 1.0, "text": "number 0"}
    assert model.rank("which?", DOCUMENTS, top_k=1, return_documents=True) == [best]
    assert model.rank("which?", [], 3, return_documents=True) == model.rank("which?", []) == []


class Two:
    def __index__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("top_k", "best"), [(1, [3]), (Two(), [3, 1]), (3, [3, 1, 2]), (4, [3, 1, 2, 0]), (9, [3, 1, 2, 0])]
)
def test_top_k_is_how_many_are_selected_and_come_back(model: RankR1CrossEncoder, top_k: Any, best: list[int]) -> None:
    assert [result["corpus_id"] for result in model.rank("which?", DOCUMENTS, top_k)] == best
    assert model.last is not None
    assert model.last.k == len(best)


def test_arguments_that_only_a_cross_encoder_has_are_ignored(
    model: RankR1CrossEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "rankr1_rag"):
        found = model.rank("which?", DOCUMENTS, batch_size=32, convert_to_tensor=True, activation_fn=None)
        RankR1CrossEncoder(model.reranker, max_length=512, device="cuda", trust_remote_code=True)
    assert found == model.rank("which?", DOCUMENTS)
    assert "rank() ignores batch_size=: it has no meaning for a reranker" in caplog.messages
    assert sum("it has no meaning" in message for message in caplog.messages) == 6


@pytest.mark.parametrize("name", ["top_n", "k", "return_text", "return_document"])
def test_a_misspelt_argument_is_a_type_error(model: RankR1CrossEncoder, name: str) -> None:
    with pytest.raises(TypeError, match=rf"rank\(\): there is no option '{name}': did you mean "):
        model.rank("which?", DOCUMENTS, **{name: 1})


def test_the_whole_ranking_of_the_last_rank_is_kept(model: RankR1CrossEncoder) -> None:
    assert model.last is None
    model.rank("which?", DOCUMENTS)
    model.rank("other?", DOCUMENTS, top_k=1)
    assert model.last is not None
    assert (model.last.query.text, model.last.k, model.last.order) == ("other?", 1, (3, 0, 1, 2))
    assert (model.last.explain(1).reasoning, model.last.cost.comparisons) == ("0 is the lowest", 1)


def test_an_error_of_the_model_passes_through() -> None:
    with pytest.raises(BackendError, match="ZeroDivisionError"):
        RankR1CrossEncoder(Reranker(Scripted(lambda messages: 1 / 0))).rank("which?", DOCUMENTS)


def test_the_name_of_a_model_goes_with_the_settings_of_a_server_and_a_reranker() -> None:
    with RankR1CrossEncoder(**SERVER, requests=2, k=3, size=4) as model:
        assert model.reranker.plan.backend.model == "m"
        assert repr(model.reranker.plan.backend).startswith("limited(")
        assert (model.reranker.k, model.reranker.size) == (3, 4)


@pytest.mark.parametrize(
    ("settings", "error", "problem"),
    [
        ({"base_url": "http://127.0.0.1:9/v1"}, ValueError, "needs model="),
        ({**SERVER, "top_n": 3}, TypeError, "top_n"),
        ({**SERVER, "size": 1}, ValueError, "size=1"),
        ({**SERVER, "model": Reranker(Scripted(len))}, TypeError, "base_url"),
        ({"model": Reranker(Scripted(len)), "size": 3, "votes": 2}, TypeError, "leave out size, votes"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_when_it_is_made(
    settings: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        RankR1CrossEncoder(**settings)


@pytest.mark.parametrize("top_k", [None, 1])
def test_a_closed_one_says_so(model: RankR1CrossEncoder, top_k: int | None) -> None:
    with model:
        assert model.rank("which?", DOCUMENTS, top_k)[0]["corpus_id"] == 3
    model.close()
    with pytest.raises(LoopError, match="closed"):
        model.rank("which?", DOCUMENTS, top_k)


def test_pairs_with_scores_are_for_a_reranker(model: RankR1CrossEncoder) -> None:
    with pytest.raises(TypeError, match="documents are pairs: pass a list of texts"):
        model.rank("which?", [("number 1", 0.5)])  # type: ignore[list-item]


def test_there_is_no_predict_as_a_pair_by_itself_has_no_score(model: RankR1CrossEncoder) -> None:
    with pytest.raises(TypeError, match="use rank"):
        model.predict([("which?", "a")])
