"""Scored formats through the reranker: one round, scores from text or from the probability of one token."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import BackendError, Completion, Passage, Ranking, Reranker, UnparsedError
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.explain.story import SCORES, Place, verdict
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, to_line
from rankr1_rag.prompt import FORMATS
from rankr1_rag.types import OrderSoFar, ScoredComparison, TokenLogprob
from tests.spelling import spelled

MARKS = {
    f"text {letter}": mark / 10 for letter, mark in zip("abcdefghij", (3, 9, 1, 7, 5, 2, 8, 0, 10, 4), strict=True)
}
BEST = sorted(range(10), key=lambda position: -list(MARKS.values())[position])
POINTWISE = [name for name, format in FORMATS.items() if format.choices]
LINE = re.compile(r"^\[(\d+)\]\. (.*)$", re.MULTILINE)


class Marking(Scripted):
    """A perfect judge of scores; of a format with choices by their probability, else by JSON."""

    def __init__(self, marks: Mapping[str, float] = MARKS, answer: str = "", **options: Any) -> None:
        super().__init__(str, **options)
        self.marks, self.answer, self.requests = marks, answer, list[Request]()

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        prompt = re.sub(r"\(already known.*?\)", "", "\n".join(one["content"] for one in request.messages))
        if request.choices:
            [mark] = [self.marks[text] for text in self.marks if text in prompt]
            odds = {**dict(zip(request.choices, (mark, 1 - mark), strict=True)), "maybe": 0.5}
            best = max(request.choices, key=odds.__getitem__)
            alternatives = spelled(odds, best, lambda text: [text])
            return Completion(best, 50, 40, 1, "stop", alternatives if request.logprobs else None)
        if self.answer:
            return Completion(self.answer, 100, 0, 9, "length" if self.answer.endswith("cut") else "stop")
        if request.messages[0]["role"] == "raw":
            return Completion("<think> It is about it.\n</think> true", 50, 0, 9)
        marks = {f"[{label}]": round(10 * self.marks[text]) for label, text in LINE.findall(prompt)}
        return Completion(
            f"<reason>\nwhy\n</reason>\n<answer>\n```json\n{json.dumps(marks)}\n```\n</answer>", 100, 0, 30
        )


def ranked(format: str, backend: Scripted | None = None, **settings: Any) -> tuple[Ranking, Any]:
    backend = backend or Marking()
    return Reranker(backend, **{"format": format, "k": 3, **settings}).rank("which?", list(MARKS)), backend


@pytest.mark.parametrize("format", [*POINTWISE, "grouprank"])
def test_a_perfect_judge_gives_the_exact_order_in_one_round_and_its_scores(format: str) -> None:
    ranking, backend = ranked(format)
    assert (list(ranking.order), ranking.k, ranking.cost.rounds) == (BEST, 3, 1)
    assert ranking.score_meaning == "score"
    assert ranking.scores == pytest.approx([(10 - place) / 10 for place in range(10)], abs=0.12)
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
    assert all(isinstance(one, ScoredComparison) and one.parsed and not one.forced for one in ranking.trace)
    sizes = [len(one.set) for one in ranking.trace]
    assert sizes == ([1] * 10 if format in POINTWISE else [10])
    requests = {"rank1": 20, "grouprank": 1}.get(format, 10)
    assert (len(backend.requests), ranking.cost.unparsed) == (requests, 0)
    if format in POINTWISE:
        assert ranking.trace[3].scores == pytest.approx((0.7,))
    assert ranking.trace[0].reasoning == {"rank1": "It is about it.", "grouprank": "why"}.get(format, "")


def test_the_score_of_a_token_is_asked_for_where_the_format_has_it() -> None:
    [request, *_] = ranked("qwen3-reranker")[1].requests
    assert (request.choices, [one["role"] for one in request.messages]) == (
        ("yes", "no"),
        ["system", "user", "assistant"],
    )
    assert (request.messages[-1]["content"], request.logprobs > 1) == ("<think>\n\n</think>\n\n", True)
    requests = ranked("rank1")[1].requests
    first, second = (next(one for one in requests if bool(one.choices) is forced) for forced in (False, True))
    assert ([one["role"] for one in first.messages], first.choices) == (["raw"], ())
    assert second.messages[-1] == {"role": "assistant", "content": "<think> It is about it.\n</think>"}


@pytest.mark.parametrize(
    ("text", "forced"), [("<think> Yes. But cut", "<think>\nYes.\n</think>"), ("cut", "\ncut\n</think>")]
)
def test_reasoning_that_is_cut_off_is_ended_and_its_score_asked_for(text: str, forced: str) -> None:
    ranking, backend = ranked("rank1", Marking(answer=text))
    assert (ranking.cost.forced, list(ranking.order)) == (10, BEST)
    assert {request.messages[-1]["content"] for request in backend.requests if request.choices} == {forced}


def test_without_reasoning_tokens_only_the_score_is_asked_for() -> None:
    ranking, backend = ranked("rank1", reasoning_tokens=0)
    assert (len(backend.requests), list(ranking.order), ranking.cost.reasoning_tokens) == (10, BEST, 0)


@pytest.mark.parametrize(("size", "votes", "comparisons"), [(5, 1, 2), (5, 3, 6), (20, 2, 2), (3, 1, 4), (2, 2, 10)])
def test_votes_are_epochs_of_shuffled_sets_in_one_round(size: int, votes: int, comparisons: int) -> None:
    ranking, _ = ranked("grouprank", size=size, votes=votes, seed=4)
    assert (len(ranking.trace), ranking.cost.rounds, list(ranking.order)) == (comparisons, 1, BEST)
    shown = [position for one in ranking.trace for position in one.set]
    assert sorted(shown) == sorted([*range(10)] * votes)
    assert shown != [*range(10)] * votes


def test_the_score_is_the_mean_of_the_epochs() -> None:
    answers = iter(['{"[1]": 2, "[2]": 8}', '{"[1]": 2, "[2]": 8}', '{"[1]": 5}'])
    backend = Scripted(lambda _: f"<reason>x</reason><answer>{next(answers)}</answer>")
    ranking = Reranker(backend, format="grouprank", votes=3, in_flight=1).rank("which?", ["a", "b"])
    own: dict[int, list[float]] = {0: [], 1: []}
    for one in ranking.trace:
        for position, score in zip(one.set, one.scores, strict=True):
            own[position] += [] if score is None else [score]
    means = {position: sum(scores) / len(scores) for position, scores in own.items()}
    assert ranking.scores[0] == pytest.approx(0.99 * means[ranking.order[0]] + 0.01)
    assert ranking.order == tuple(sorted(means, key=lambda one: -means[one]))


@pytest.mark.parametrize("text", ["none", "<reason>x</reason><answer>{}</answer>", '<answer>{"[77]": 3}</answer>'])
def test_an_answer_without_scores_leaves_the_first_stage_order(text: str) -> None:
    ranking, _ = ranked("grouprank", Marking(answer=text))
    assert (list(ranking.order), ranking.cost.unparsed, ranking.score_meaning) == ([*range(10)], 1, "score")
    assert ranking.trace[0].scores == (None,) * 10
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
    with pytest.raises(UnparsedError):
        ranked("grouprank", Marking(answer=text), strict=True)


def test_scores_that_are_cut_off_are_asked_for_again() -> None:
    texts = iter(['<reason>x</reason>\n<answer>\n```json\n{"[1]": 3, cut', '8, "[2]": 9}\n```\n</answer>'])
    finish = iter(["length", "stop"])
    asked: list[Any] = []
    backend = Scripted(lambda messages: asked.append(messages) or Completion(next(texts), finish_reason=next(finish)))
    ranking = Reranker(backend, format="grouprank").rank("which?", ["a", "b"])
    assert asked[1][-1]["content"] == '<reason>x</reason>\n<answer>\n```json\n{"[1]": '
    assert (ranking.trace[0].scores, ranking.cost.forced) == ((0.8, 0.9), 1)
    assert ranking.order == ranking.trace[0].set[::-1]


def test_a_scored_format_serves_other_algorithms_too() -> None:
    ranking, _ = ranked("grouprank", algorithm="tournament", size=4)
    assert list(ranking.order[:3]) == BEST[:3]
    assert ranking.cost.rounds > 1


def test_scores_go_through_json_and_a_store(tmp_path: Path) -> None:
    for format in ("grouprank", "qwen3-reranker", "rank1"):
        backend = stored(Marking(), tmp_path / "store.sqlite")
        first, again = (ranked(format, backend)[0] for _ in range(2))  # type: ignore[arg-type]
        assert (again.cost.stored, again.order, again.scores) == (len(first.trace), first.order, first.scores)
        record = json.loads(to_line(ranking_to_json(first)))
        assert ranking_from_json(record) == first
        del record["rankr1"]["trace"]
        assert ranking_from_json(record).scores == pytest.approx(first.scores)
        assert ranking_from_json(record).score_meaning == "score"
    record = json.loads(to_line(ranking_to_json(first)))
    for wrong in ([2.0], [0.1, 0.2], ["a"]):
        record["rankr1"]["trace"][0]["scores"] = wrong
        with pytest.raises(ValueError, match=r"scores|probability"):
            ranking_from_json(record)


def test_the_order_so_far_is_that_of_the_scores_so_far() -> None:
    orders: list[tuple[int, ...]] = []
    reranker = Reranker(Marking(), format="mxbai-rerank-v2", k=3, in_flight=1)
    reranker.rank(
        "which?", list(MARKS), on_event=lambda one: orders.append(one.order) if isinstance(one, OrderSoFar) else None
    )
    assert orders[0] == tuple(range(10))
    assert list(orders[-1]) == BEST
    spent = Reranker(Marking(), format="mxbai-rerank-v2", k=3, budget_tokens=150).rank("which?", list(MARKS))
    assert spent.truncated is not None
    assert list(spent.order[:3]) == [1, 0, 2]


def test_hops_and_fusion_work_with_scores() -> None:
    ranking, backend = ranked("qwen3-reranker", hops=2)
    assert (list(ranking.order), ranking.cost.rounds) == (BEST, 2)
    assert "(already known: text i)" in backend.requests[-1].messages[1]["content"]
    fused, _ = ranked("qwen3-reranker", fusion=60)
    assert (fused.selected, fused.score_meaning) == (tuple(BEST[:3]), "ordinal")


def test_an_explanation_has_the_score() -> None:
    ranking, _ = ranked("grouprank")
    why = ranking.explain(2)
    assert why.score == 0.9
    assert "score 0.90" in str(why)
    assert (verdict(ranking, why), Place(why, "b").record) == ("Scored 0.90 in round 1.", "score 0.90")
    assert "score" in SCORES
    plain = Reranker(Scripted(lambda _: "<answer>[1]</answer>")).rank("q", ["a", "b"])
    assert (plain.explain(1).score, plain.trace[0].scores) == (None, ())


def test_a_token_without_alternatives_is_an_error_that_names_the_remedy() -> None:
    with pytest.raises(BackendError, match="token alternatives"):
        ranked("qwen3-reranker", Scripted(lambda _: "yes"))
    certain = Completion("yes", logprobs=(TokenLogprob("yes", 0.0, (("yes", 0.0),)),))
    assert ranked("qwen3-reranker", Scripted(lambda _: certain))[0].trace[0].scores == (1.0,)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"format": "qwen3-reranker", "algorithm": "tournament"}, r"needs sets of 2 or more \(got size=1\)"),
        ({"format": "listwise-v1", "algorithm": "scores"}, r"needs a scored format"),
        ({"format": "grouprank", "algorithm": "window"}, r"needs a listwise format"),
        ({"format": "grouprank", "votes": "auto"}, r"votes='auto' needs a setwise format"),
        ({"format": "grouprank", "probabilities": True}, r"probabilities=True needs a setwise format"),
    ],
)
def test_options_that_do_not_go_with_scores_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Reranker(Marking(), **settings)


@pytest.mark.parametrize("format", [name for name, one in FORMATS.items() if one.choices or one.begun or one.raw])
def test_a_begun_or_raw_prompt_needs_a_backend_that_continues(format: str) -> None:
    with pytest.raises(ValueError, match="needs a backend that continues a begun answer"):
        Reranker(Scripted(str, can_continue=False), format=format)


def test_a_title_is_shown_as_the_authors_show_it_and_a_passage_is_clipped() -> None:
    backend = Marking({"Title": 0.5}, context=900, count=lambda text: len(text.split()))
    reranker = Reranker(backend, format="rank1", reasoning_tokens=100, clip="head")
    ranking = reranker.rank("which?", [Passage("a", "word " * 2_000, "Title")])
    assert "Passage: Title word word" in backend.requests[0].messages[0]["content"]
    assert (ranking.clipped, ranking.order) == (1, (0,))
