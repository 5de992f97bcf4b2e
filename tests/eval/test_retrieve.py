"""The first stages and the orders by models: BM25 to published figures, and embeddings with real weights."""

import random
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval import systems
from rankr1_eval.baselines import FirstStage
from rankr1_eval.data import load
from rankr1_eval.retrieval.bm25 import best, bm25
from rankr1_eval.retrieval.dense import Dense, shown
from rankr1_eval.types import Question, pooled
from rankr1_rag import Passage, Query
from tests.eval import evaluations

pytestmark = pytest.mark.third_party


def passages(*texts: str) -> list[Passage]:
    return [Passage(str(place), text) for place, text in enumerate(texts)]


def ids(corpus: list[Passage], query: str, n: int = 20) -> list[str]:
    return [scored.id for scored in bm25(corpus, [Query("q", query)], n)["q"]]


@pytest.mark.parametrize(
    ("name", "file", "recall", "complete"),
    [
        ("hotpotqa", "hotpotqa/dev_distractor_sample.json", (0.749, 0.876, 0.925), (0.529, 0.759, 0.850)),
        ("2wikimultihopqa", "2wikimultihopqa/dev_sample.json", (0.665, 0.729, 0.767), (0.339, 0.434, 0.502)),
        ("musique", "musique/musique_ans_v1.0_dev_sample.jsonl", (0.490, 0.588, 0.689), (0.140, 0.240, 0.410)),
    ],
)
def test_bm25_finds_the_supports_of_real_samples(
    shared_data: Path, name: str, file: str, recall: tuple[float, ...], complete: tuple[float, ...]
) -> None:
    questions = load(name, shared_data / file)
    run = bm25(pooled(questions), [question.query for question in questions], 20)
    for k, share, whole in zip((5, 10, 20), recall, complete, strict=True):
        best = {id: {scored.id for scored in ranked[:k]} for id, ranked in run.items()}
        found = [len({*one.supports} & best[one.query.id]) / len(one.supports) for one in questions]
        assert round(sum(found) / len(found), 3) == share, k
        assert round(sum(each == 1 for each in found) / len(found), 3) == whole, k


def test_equal_scores_are_in_corpus_order() -> None:
    corpus = passages(*["a cat on a mat"] * 30)
    assert ids(corpus, "cat", 5) == ["0", "1", "2", "3", "4"]
    assert ids([*corpus, Passage("dog", "a dog")], "dog cat", 3) == ["dog", "0", "1"]


@pytest.mark.parametrize("query", ["zebra", "of the and", "", "   ", "?!"])
def test_a_query_without_a_known_word_gets_the_first_of_the_corpus(query: str) -> None:
    corpus = passages("a cat", "a dog", "", "cats and dogs")
    run = bm25(corpus, [Query("before", "dog"), Query("q", query), Query("after", "cats")], 3)
    assert [(scored.id, scored.score) for scored in run["q"]] == [("0", 0), ("1", 0), ("2", 0)]
    assert (run["before"][0].id, run["after"][0].id) == ("1", "0")


def test_a_small_corpus_is_ranked_whole_by_stems_and_titles_too() -> None:
    corpus = [*passages("a cat", "", "the of", "a dog"), Passage("title", "Nothing.", "Reranking")]
    assert all(ids(corpus, "dogs", n) == ["3", "0", "1", "2", "title"] for n in (5, 6, 1000))
    assert ids(corpus, "reranked", 1) == ["title"]
    assert bm25(corpus, [], 5) == {}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ((), "the corpus is empty"),
        (("",), "nothing but English stop words"),
        (("  ", "\n", "?"), "nothing but English stop words"),
        (("the", "of and", ""), "nothing but English stop words"),
    ],
)
def test_a_corpus_in_which_nothing_can_be_found_is_told(texts: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        bm25(passages(*texts), [Query("q", "cat")], 5)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1), st.integers(1, 120))
def test_the_best_are_the_first_of_a_stable_sort(scores: list[float], n: int) -> None:
    wanted = sorted(range(len(scores)), key=lambda place: -scores[place])[:n]
    assert best(numpy.array(scores, "float32"), n).tolist() == wanted


@pytest.mark.parametrize("asked", [Dense, lambda: systems.dense(""), lambda: systems.cross_encoder("a/b")])
def test_a_missing_extra_is_named(asked: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install "rankr1-eval\[dense\]"$'):
        asked()


@pytest.mark.parametrize(
    ("system", "retriever"),
    [("dense", "bm25"), ("dense:no/such-model", "bm25"), ("cross-encoder:/nowhere/model", "bm25"), ("none", "dense")],
)
def test_a_model_that_cannot_be_had_is_named_before_another_is_asked(
    system: str, retriever: Any, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not find_spec("sentence_transformers"):
        pytest.skip('no sentence-transformers: pip install "rankr1-eval[dense]"')
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    asked: list[object] = []
    with pytest.raises(ValueError, match=r"the model '.*' is no folder, is not .*: check its name and the network, or"):
        evaluations.run(
            questions, asked.append, tmp_path / "run", f"rank-r1,{system}", first_stage=FirstStage(retriever)
        )
    assert not asked
    assert not (tmp_path / "run" / "passages.jsonl").exists()


@pytest.fixture(scope="module")
def judge(weights: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a cross-encoder: MiniLM with a head that nobody has trained."""
    import torch
    from sentence_transformers import CrossEncoder

    path = str(tmp_path_factory.mktemp("judge"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CrossEncoder(weights, num_labels=1).save_pretrained(path)
    return path


PARAPHRASE = "Who discovered how atoms are split?"
TOLD = passages(
    "The cathedral has a tall tower.",
    "Bread is made of flour and water.",
    "Nuclear fission was found by Meitner and Hahn.",
    "He split the bill with her.",
)
slow = pytest.mark.slow


@slow
def test_an_embedding_model_finds_a_paraphrase_first(weights: str, capfd: pytest.CaptureFixture[str]) -> None:
    run = Dense(weights).run(TOLD, [Query("q", PARAPHRASE), Query("r", "a loaf")], 3)
    assert [(len(ranked), ranked[0].id) for ranked in run.values()] == [(3, "2"), (3, "1")]
    assert ids(TOLD, PARAPHRASE)[0] == "3", "BM25 goes by the words"
    for ranked in run.values():
        scores = [scored.score for scored in ranked]
        assert scores == sorted(scores, reverse=True)
        assert all(-1.001 < score < 1.001 for score in scores)
    assert capfd.readouterr() == ("", ""), "no progress bar of another library"
    with pytest.raises(ValueError, match="the corpus is empty"):
        Dense("no/such-model").run([], [Query("q", "cat")], 5)


@slow
def test_equal_passages_are_equally_similar_and_stand_in_corpus_order(weights: str) -> None:
    dice = random.Random(0)
    longer = [f"{'A dog barked at the cats in the yard. ' * dice.randint(1, 9)}" for _ in range(9)]
    texts = [*["A cat sat on the mat."] * 37, *longer, *["A cat."] * 9]
    dice.shuffle(texts)
    corpus = passages(*texts)
    run = Dense(weights).run(corpus, [Query("cat", "a cat"), Query("dog", "dogs")], len(corpus))
    for ranked in run.values():
        assert sorted(scored.id for scored in ranked) == sorted(passage.id for passage in corpus)
        for text in set(texts):
            equal = [scored for scored in ranked if texts[int(scored.id)] == text]
            assert len({scored.score for scored in equal}) == 1
            assert [int(scored.id) for scored in equal] == [place for place, one in enumerate(texts) if one == text]


@slow
def test_what_is_embedded_is_kept_and_no_model_is_loaded_again(weights: str, tmp_path: Path) -> None:
    model, cache = shutil.copytree(weights, tmp_path / "model"), tmp_path / "deep" / "cache"
    queries = [Query("q", PARAPHRASE)]
    before = Dense(str(model), cache).run(TOLD, queries, 4)
    shutil.rmtree(model)
    assert Dense(str(model), cache).run(TOLD, queries, 4) == before
    named = [replace(passage, id=f"new {passage.id}") for passage in TOLD]
    assert Dense(str(model), cache).run(named, queries, 1)["q"][0].id == "new 2"
    assert {path.suffix for path in cache.iterdir()} == {".npy"}
    other = [replace(TOLD[0], text="Another text with the same id."), *TOLD[1:]]
    with pytest.raises(Exception, match=str(model)):
        Dense(str(model), cache).run(other, queries, 4)
    with pytest.raises(Exception, match="elsewhere"):
        Dense(str(tmp_path / "elsewhere"), cache).run(TOLD, queries, 4)


@slow
def test_an_embedding_model_searches_again_with_any_text_and_keeps_nothing_of_it(weights: str, tmp_path: Path) -> None:
    first_stage = FirstStage("dense", n=3, model=weights, cache=tmp_path)
    wanted = first_stage.over([], TOLD)([Query("q", PARAPHRASE)])["q"]
    kept = sorted(tmp_path.iterdir())
    search = first_stage.search(TOLD)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(search, [PARAPHRASE, "a loaf", "a very long text " * 500, PARAPHRASE]))
    assert [one.id for one in found[0]] == [scored.id for scored in wanted]
    assert found[0] == found[3]
    assert found[1][0] == TOLD[1]
    assert sorted(tmp_path.iterdir()) == kept


@slow
def test_candidates_are_ordered_by_what_a_cross_encoder_predicts(judge: str, weights: str, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    order, model = systems.cross_encoder(judge), CrossEncoder(judge)
    for query in (PARAPHRASE, "a loaf", ""):
        scores = model.predict([(query, shown(passage)) for passage in TOLD], show_progress_bar=False)
        assert len(set(scores.tolist())) == 4
        assert order(Query("q", query), TOLD) == tuple(numpy.argsort(-scores).tolist())
    CrossEncoder(weights, num_labels=3).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="has 3 labels: needs a model with one"):
        systems.cross_encoder(str(tmp_path))(Query("q", PARAPHRASE), TOLD)


@slow
def test_models_order_the_candidates_of_an_evaluation_and_a_finished_one_loads_none(
    questions: list[Question], weights: str, judge: str, tmp_path: Path
) -> None:
    model, path, questions = str(shutil.copytree(weights, tmp_path / "model")), tmp_path / "run", questions[:2]
    first_stage = FirstStage("dense", n=6, model=model, cache=path)
    asked = (questions, lambda _: "Dublin", path, f"none,dense:{weights},cross-encoder:{judge}")
    run = evaluations.run(*asked, first_stage=first_stage, ks=(2,))
    first, *others = run.systems[:3]
    wanted = Dense(weights).run(pooled(questions), [question.query for question in questions], 6)
    assert first.orders == {id: tuple(scored.id for scored in ranked) for id, ranked in wanted.items()}
    assert run.settings["dense"] == model
    assert list(path.glob("embeddings-*.npy"))
    for system, order in zip(others, (systems.dense(weights), systems.cross_encoder(judge)), strict=True):
        for id, query in ((question.query.id, question.query) for question in questions):
            candidates = [run.passages[id] for id in first.orders[id]]
            assert system.orders[id] == tuple(candidates[position].id for position in order(query, candidates))
            assert system.reads[2][id].answer == "Dublin"
            assert system.costs[id].seconds > 0
    assert others[1].orders != first.orders
    shutil.rmtree(model)
    again = [evaluations.run(*asked, first_stage=first_stage, ks=(2,)).systems]
    (path / "candidates.jsonl").unlink()  # … and what its cache holds is not embedded again either
    again.append(evaluations.run(*asked, first_stage=first_stage, ks=(2,)).systems)
    assert [[one.orders for one in systems] for systems in again] == [[one.orders for one in run.systems]] * 2
