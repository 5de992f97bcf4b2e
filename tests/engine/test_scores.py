"""Scored formats through the reranker: one round, scores from text or from the probability of one token."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from rankr1_rag import BackendError, Completion, Passage, Ranking, Reranker, UnparsedError
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.explain.story import SCORE_MEANINGS, NumberedComparison, Place, verdict
from rankr1_rag.explain.terminal import ranking_table
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, to_line
from rankr1_rag.prompt import FORMATS
from rankr1_rag.scoring import Meaning
from rankr1_rag.selection import ALGORITHMS, LISTWISE
from rankr1_rag.server.contract import reasoning_of
from rankr1_rag.server.events import as_json_event
from rankr1_rag.types import ComparisonAnswered, OrderSoFar, TokenLogprob
from tests.spelling import spelled

MARKS = {
    f"text {letter}": mark / 10 for letter, mark in zip("abcdefghij", (3, 9, 1, 7, 5, 2, 8, 0, 10, 4), strict=True)
}
BEST = sorted(range(10), key=lambda position: -list(MARKS.values())[position])
POINTWISE = [name for name, format in FORMATS.items() if format.choices]
SETWISE = sorted(ALGORITHMS.keys() - LISTWISE)
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
    assert all(len(one.scores) == len(one.set) and one.parsed and not one.forced for one in ranking.trace)
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


def test_an_early_end_moves_only_what_has_a_score() -> None:
    """Scores say nothing about the candidates without one: those keep their first-stage ranks."""
    reranker = Reranker(Marking(), format="grouprank", size=3, k=3, in_flight=1, budget_tokens=150, seed=1)
    spent = reranker.rank("which?", list(MARKS))
    assert spent.truncated is not None
    scored = {position for one in spent.trace for position in one.set}
    assert 0 < len(scored) < 10
    assert [one for one in spent.order if one in scored] == [one for one in BEST if one in scored]
    assert all(spent.order[position] == position for position in range(10) if position not in scored)
    assert [place for place, one in enumerate(spent.order) if one in scored] == sorted(scored)


def test_hops_and_fusion_work_with_scores() -> None:
    ranking, backend = ranked("qwen3-reranker", hops=2)
    assert (list(ranking.order), ranking.cost.rounds) == (BEST, 2)
    assert "(already known: text i)" in backend.requests[-1].messages[1]["content"]
    fused, _ = ranked("qwen3-reranker", fusion=60)
    assert (fused.chosen, fused.selected, fused.score_meaning) == (tuple(BEST[:3]), tuple(BEST[:3]), "ordinal")


class Sated(Marking):
    """Scores 0.1 less, but not below 0, once another passage is known."""

    async def complete(self, request: Request) -> Completion:
        is_later = "already known" in str(request.messages)
        self.marks = {text: max(0.0, mark - is_later / 10) for text, mark in MARKS.items()}
        return await super().complete(request)


@pytest.mark.parametrize("format", ["qwen3-reranker", "grouprank"])
def test_scores_of_several_hops_are_those_of_the_last_that_showed_the_passage(format: str) -> None:
    ranking, _ = ranked(format, Sated(), hops=2)
    assert list(ranking.order) == BEST
    own = [ranking.explain(rank).score for rank in range(1, 11)]
    less = [max(0.0, mark - 0.1) for mark in sorted(MARKS.values(), reverse=True)[1:]]
    assert own == pytest.approx([1.0, *less])
    assert list(ranking.scores[1:]) == pytest.approx([0.99 * one + (9 - at) / 1000 for at, one in enumerate(less)])
    for rank in range(2, 11):
        why = ranking.explain(rank)
        assert why.comparison is not None
        assert (why.comparison.round, bool(why.comparison.known)) == (1, True)
        assert verdict(ranking, why).startswith(f"Scored {why.score:.2f} in round 2")


def test_an_explanation_has_the_score() -> None:
    ranking, _ = ranked("grouprank")
    why = ranking.explain(2)
    assert why.score == 0.9
    assert "score 0.90" in str(why)
    assert (verdict(ranking, why), Place(why, "b").record) == ("Scored 0.90 in round 1.", "score 0.90")
    assert set(SCORE_MEANINGS) == set(get_args(Meaning))
    plain = Reranker(Scripted(lambda _: "<answer>[1]</answer>")).rank("q", ["a", "b"])
    assert (plain.explain(1).score, plain.trace[0].scores) == (None, ())


def test_an_explanation_has_the_mean_of_all_epochs_wherever_it_is_shown() -> None:
    texts = iter(['{"[1]": 2, "[2]": 8}', '{"[1]": 6, "[2]": 10}', '{"[1]": 4}'])
    backend = Scripted(lambda _: f"<reason>x</reason><answer>{next(texts)}</answer>")
    ranking = Reranker(backend, format="grouprank", votes=3, in_flight=1).rank("which?", ["a", "b"])
    own: dict[int, list[float]] = {0: [], 1: []}
    for one in ranking.trace:
        for position, score in zip(one.set, one.scores, strict=True):
            own[position] += [] if score is None else [score]
    for rank in (1, 2):
        why = ranking.explain(rank)
        mean = sum(own[why.position]) / len(own[why.position])
        assert why.score == pytest.approx(mean)
        assert why.comparison is not None
        assert why.comparison.scores[why.comparison.set.index(why.position)] is not None
        assert f"score {mean:.2f}" in str(why)
        assert Place(why, "b").record == f"score {mean:.2f}"
        assert verdict(ranking, why) == f"Scored {mean:.2f} in round 1."
        console = Console(width=100, file=io.StringIO())
        console.print(ranking_table(ranking))
        assert f" {mean:.2f} " in console.file.getvalue()  # type: ignore[attr-defined]
    sent = reasoning_of(ranking, 2)
    assert [one["score"] for one in sent] == [ranking.explain(rank).score for rank in (1, 2)]
    answered = as_json_event(ComparisonAnswered(0, ranking.trace[0]))
    assert answered is not None
    assert answered[1]["scores"] == ranking.trace[0].scores
    assert NumberedComparison(1, ranking.trace[0]).listing.count("0.") + (1.0 in ranking.trace[0].scores) == 2


def test_a_passage_without_a_score_says_so() -> None:
    ranking, _ = ranked("grouprank", Marking(answer='<reason>x</reason><answer>{"[1]": 3}</answer>'))
    why = ranking.explain(5)
    assert (why.score, Place(why, "b").record, verdict(ranking, why)) == (None, "no score", "No score in round 1.")
    assert "without a score" in str(why)
    assert "score" not in reasoning_of(ranking, 5)[-1]
    plain = Reranker(Scripted(lambda _: "<answer>[1]</answer>")).rank("q", ["a", "b"])
    assert "scores" not in json.dumps(ranking_to_json(plain)["rankr1"]["trace"])
    assert "scores" not in json.dumps(as_json_event(ComparisonAnswered(0, plain.trace[0])))


def test_a_token_without_alternatives_is_an_error_that_names_the_remedy() -> None:
    with pytest.raises(BackendError, match=r"which format='qwen3-reranker' needs: use vLLM, transf"):
        ranked("qwen3-reranker", Scripted(lambda _: "yes"))
    with pytest.raises(BackendError, match=r"probabilities=True and votes='auto' need: use votes=3, or vLLM"):
        Reranker(Scripted(lambda _: "<answer>[1]</answer>"), probabilities=True).rank("q", ["a", "b"])
    certain = Completion("yes", logprobs=(TokenLogprob("yes", 0.0, (("yes", 0.0),)),))
    assert ranked("qwen3-reranker", Scripted(lambda _: certain))[0].trace[0].scores == (1.0,)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"format": "rank-r1-v0.1", "size": 1}, r"needs sets of 2 or more \(got size=1\)"),
        *[({"format": "grouprank", "algorithm": one}, r"gives scores \(got algorithm=") for one in SETWISE],
        ({"format": "qwen3-reranker", "algorithm": "tournament"}, r"gives scores .*use algorithm='scores'"),
        ({"format": "qwen3-reranker", "votes": 2}, r"votes=2 would ask about each passage in the same words"),
        ({"format": "qwen3-reranker", "votes": 2, "temperature": 0.5}, r"votes=2 would ask"),
        ({"format": "rank1", "votes": 3}, r"votes=3 would ask .*temperature=0\): use votes=1, or a temperature"),
        ({"format": "rank1", "votes": 3, "temperature": 1, "reasoning_tokens": 0}, r"votes=3 would ask"),
        ({"format": "grouprank", "votes": 3, "size": 1}, r"votes=3 would ask"),
        ({"format": "rank1", "force": "never"}, r"force='never' forbids: use force='truncated'"),
        ({"format": "listwise-v1", "algorithm": "scores"}, r"needs a scored format"),
        ({"format": "grouprank", "algorithm": "window"}, r"needs a listwise format"),
        ({"format": "grouprank", "votes": "auto"}, r"votes='auto' needs a setwise format"),
        ({"format": "grouprank", "probabilities": True}, r"probabilities=True needs a setwise format"),
    ],
)
def test_options_that_do_not_go_with_scores_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Reranker(Marking(), **settings)


def test_votes_on_single_passages_are_samples_where_these_may_differ() -> None:
    ranking, backend = ranked("rank1", votes=2, temperature=0.7)
    assert sorted(one.sample for one in ranking.trace) == [0] * 10 + [1] * 10
    assert len({(str(one.messages), one.sample, one.choices) for one in backend.requests}) == 40


@pytest.mark.parametrize("format", [name for name, one in FORMATS.items() if one.choices or one.prefill or one.raw])
def test_a_begun_or_raw_prompt_needs_a_backend_that_continues(format: str) -> None:
    with pytest.raises(ValueError, match="needs a backend that continues a begun answer"):
        Reranker(Scripted(str, can_continue=False), format=format)


def test_a_title_is_shown_as_the_authors_show_it_and_a_passage_is_clipped() -> None:
    backend = Marking({"Title": 0.5}, context=900, count=lambda text: len(text.split()))
    reranker = Reranker(backend, format="rank1", reasoning_tokens=100, clip="head")
    ranking = reranker.rank("which?", [Passage("a", "word " * 2_000, "Title")])
    assert "Passage: Title word word" in backend.requests[0].messages[0]["content"]
    assert (ranking.clipped, ranking.order) == (1, (0,))
